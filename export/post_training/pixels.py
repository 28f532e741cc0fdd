"""How pixels become the input of a network: one rule for training, calibration and firmware."""

import numpy as np
import numpy.typing as npt


def normalisation_factors(
    mean: npt.ArrayLike, std: npt.ArrayLike, *, unit: float = 255.0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Factor and summand per channel that turn pixels into network input, so that every consumer agrees.

    Args:
        mean: Per channel, in units of pixel / `unit`.
        std: Likewise; positive.
        unit: What a full pixel is stored as.

    Example:
        >>> normalisation_factors([0.5], [0.5], unit=1.0)
        (array([2.], dtype=float32), array([-1.], dtype=float32))
    """
    # in float64 until the end, so that both factors are rounded once
    scale = 1.0 / (unit * np.asarray(std))
    shift = -np.asarray(mean) / np.asarray(std)
    return scale.astype(np.float32), shift.astype(np.float32)
