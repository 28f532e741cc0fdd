"""The handwritten digits inside scikit-learn: 1,797 real 8x8 scans, shown to the network as 3x32x32.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998.
"""

import numpy as np

from modelpress.export.errors import InputError
from modelpress.export.extras import how_to_install
from modelpress.toolkit.data.data_set import DataSet, Split

_TEST_FRACTION = 0.2
_SPLIT_SEED = 0  # not the recipe's seed: the test images are the same in every run


def load_digits() -> DataSet:
    """All digits, a fifth of them for the test; pixels enlarged fourfold with linear interpolation.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise InputError(f"the digits are part of scikit-learn: {how_to_install('train')}") from error
    from scipy.ndimage import zoom

    small = load()
    grey = np.clip(zoom(small.images, (1, 4, 4), order=1) * (255.0 / 16.0), 0, 255).astype(
        np.uint8
    )  # (n, 32, 32)
    everything = Split.of(np.repeat(grey[:, None], 3, axis=1), small.target.astype(np.int64))
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(everything))
    n_test = round(_TEST_FRACTION * len(everything))
    train, test = everything.take(np.sort(order[n_test:])), everything.take(np.sort(order[:n_test]))
    level = train.images / 255.0

    return DataSet(
        name="digits",
        class_names=tuple(str(digit) for digit in range(10)),
        train=train,
        validation=train.take(np.arange(0)),
        test=test,
        mean=(round(float(level.mean()), 4),) * 3,
        std=(round(float(level.std()), 4),) * 3,
        mirrored=False,
    )
