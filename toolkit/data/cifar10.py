"""CIFAR-10 from its official binary version, or through torchvision.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from pathlib import Path

import numpy as np

from modelpress.export.errors import InputError
from modelpress.export.extras import how_to_install
from modelpress.toolkit.data.data_set import DataSet, Split

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
_RECORD_BYTES = 1 + 3 * 32 * 32  # label, then R, G, B planes row by row
_TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_TEST_FILE = "test_batch.bin"


def load_cifar10(folder: str | None, *, download: bool = False, test_only: bool = False) -> DataSet:
    """Read the binary version where the folder has it, torchvision's copy otherwise.

    Args:
        folder: Holds ``cifar-10-batches-bin/`` or its files, or torchvision's ``cifar-10-batches-py/``.
        test_only: Read the test file alone.
        download: Let torchvision fetch the data into `folder` if they are not there.

    Raises:
        InputError: Files are missing, truncated or hold impossible labels.
    """
    if folder is None:
        # what measures only has no option to fetch anything
        fetch = "" if test_only else " (and --download to fetch it there)"
        raise InputError(f"cifar10 needs a folder: pass --data-dir DIR{fetch}")
    root = Path(folder)
    # the folder itself may be meant, or the one that holds it
    for candidate in (root / "cifar-10-batches-bin", root):
        if (candidate / _TEST_FILE).is_file() or (candidate / _TRAIN_FILES[0]).is_file():
            return _load_binary(candidate, test_only=test_only)

    if download or (root / "cifar-10-batches-py").is_dir():
        return _load_torchvision(root, download=download)
    if not root.is_dir():
        what = "is no folder" if root.exists() else "does not exist"
        fetch = "" if test_only else ", or --download to fetch CIFAR-10"
        raise InputError(f"data folder {root} {what}; pass --data-dir DIR{fetch}")
    raise InputError(
        f"{root} holds no CIFAR-10: expected cifar-10-batches-bin/{_TEST_FILE} or cifar-10-batches-py/; "
        + ("choose another --data-dir" if test_only else "pass --download to fetch it")
    )


def read_batch(path: Path) -> Split:
    """Read one file of any whole number of records.

    Raises:
        InputError: The file is missing, truncated, empty, or holds a label above 9.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; CIFAR-10 is incomplete") from error

    n_records, rest = divmod(data.size, _RECORD_BYTES)
    if rest or not n_records:
        raise InputError(
            f"{path}: {data.size:,} bytes are {n_records:,} records and {rest:,} bytes more; expected a multiple "
            f"of {_RECORD_BYTES:,}; the file is truncated, copy it again"
        )

    records = data.reshape(n_records, _RECORD_BYTES)
    labels = records[:, 0].astype(np.int64)
    if labels.max() >= len(CLASS_NAMES):
        bad = int(np.argmax(labels >= len(CLASS_NAMES)))
        raise InputError(
            f"{path}: record {bad:,} has label {labels[bad]}; expected 0 to 9; this is no CIFAR-10 batch"
        )

    return Split.of(records[:, 1:].reshape(n_records, 3, 32, 32), labels)


def _load_binary(folder: Path, *, test_only: bool) -> DataSet:
    test = read_batch(folder / _TEST_FILE)
    if test_only:
        return _data_set(test.take(np.arange(0)), test)
    train = [read_batch(folder / name) for name in _TRAIN_FILES]
    return _data_set(
        Split.of(np.concatenate([s.images for s in train]), np.concatenate([s.labels for s in train])), test
    )


def _load_torchvision(root: Path, *, download: bool) -> DataSet:
    try:
        from torchvision.datasets import CIFAR10
    except ImportError as error:
        raise InputError(f"torchvision is not installed: {how_to_install('train')}") from error
    try:
        parts = [CIFAR10(str(root), train=train, download=download) for train in (True, False)]
    except Exception as error:  # network, disk and checksum errors of several libraries
        raise InputError(f"torchvision cannot load CIFAR-10 from {root}: {error}") from error

    splits = [
        Split.of(np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)), np.asarray(part.targets, np.int64))
        for part in parts
    ]
    return _data_set(*splits)


def _data_set(train: Split, test: Split) -> DataSet:
    return DataSet(
        name="cifar10",
        class_names=CLASS_NAMES,
        train=train,
        validation=train.take(np.arange(0)),
        test=test,
        mean=MEAN,
        std=STD,
        mirrored=True,
    )
