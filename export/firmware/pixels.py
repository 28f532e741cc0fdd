"""Codes of 8-bit pixels, where a model says how pixels become its input."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from modelpress.export.firmware.network import Activation
from modelpress.export.post_training.calibration import pixel_normalisation
from modelpress.export.post_training.pixels import normalisation_factors

_PIXELS = np.arange(256, dtype=np.uint8)


def pixel_tables(source: Activation, metadata: Mapping[str, str]) -> npt.NDArray[np.uint8] | None:
    """Shape ``(channels, 256)``, or None where the model does not say; roundings as in training.

    Raises:
        InputError: What it says is damaged.
    """
    stated = pixel_normalisation(metadata)
    if stated is None or len(stated[0]) != source.channels:
        return None
    factor, shift = normalisation_factors(*stated)
    return quantized(_PIXELS.astype(np.float32) * factor[:, None] + shift[:, None], source)


def quantized(values: npt.NDArray[np.float32], source: Activation) -> npt.NDArray[np.uint8]:
    """Codes of values, as QuantizeLinear makes them."""
    codes = np.rint(np.clip(values / source.scale, -source.zero, 255 - source.zero)) + source.zero
    return np.asarray(codes, np.uint8)
