"""Factors that make codes of sums: float32 as ONNX Runtime computes them, or integers with a shift.

The order of the roundings is that of ONNX Runtime's kernels: see `QLinearConv`, `QLinearAdd` and
`QLinearGlobalAveragePool` there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import ModelError
from modelpress.export.firmware.network import Activation, Weights

FloatArray = npt.NDArray[np.float32]
VALUE_BITS = 16  # behind the point, of values in integers
_MOST_SHIFT = 62
_SUM_LIMIT = 2.0**30
_CODES = 255
_WIDE_SUM = 1 << 23
MOST_STEPS = 2.0**23  # of a code from zero; press_nn_arithmetic.h takes a half more


@dataclass(frozen=True)
class Sum:
    """``first * a + second * b + constant`` is the code of a sum; the integers in units of ``2**-shift``."""

    first: float
    second: float
    constant: float
    shift: int


def bias_of(weights: Weights, read: Activation) -> npt.NDArray[np.int64]:
    """What sums of products start with: the bias, less what the zero point of the inputs adds."""
    return np.asarray(weights.bias - read.zero * weights.rows.sum(axis=1, dtype=np.int64), np.int64)


def fits_wide(weights: Weights) -> bool:
    """Whether sums over the weights of either sign fit the 24 bits that press_nn_conv.c has for each of two."""
    rows = weights.rows.astype(np.int64)
    one_sign = max(np.clip(side * rows, 0, None).sum(axis=1).max(initial=0) for side in (1, -1))
    return bool(_CODES * one_sign < _WIDE_SUM)


def check_reach(
    name: str, weights: Weights, bias: npt.NDArray[np.int64], scales: Sequence[float], most: float
) -> None:
    """Refuse a layer whose sums could leave what the kernels compute with.

    Raises:
        ModelError: Of some input, a sum is beyond 32 bits, or times its scale beyond `most`.
    """
    farthest = np.abs(bias) + _CODES * np.abs(weights.rows.astype(np.int64)).sum(axis=1)
    if farthest.max(initial=0) >= 1 << 31 or (farthest * np.abs(scales)).max(initial=0) >= most:
        raise ModelError(
            f"{name}: its sums can leave the range of 32-bit integers, or its outputs that of their scale by far; "
            "calibrate on more data, or train the layer again"
        )


def conv_scale(weights: Weights, read: Activation, made: Activation) -> FloatArray:
    """Output steps per unit of the sum, for each output."""
    return np.asarray(read.scale * weights.scale / made.scale, np.float32)


def value_scale(weights: Weights, read: Activation) -> FloatArray:
    """Value of a unit of the sum, for each output."""
    return np.asarray(read.scale * weights.scale, np.float32)


def global_average_scale(read: Activation, made: Activation) -> np.float32:
    """Output steps per unit of the sum over a plane."""
    return np.float32(read.scale / (made.scale * np.float32(read.height * read.width)))


def product_scale(a: Activation, b: Activation, made: Activation) -> np.float32:
    """Output steps per unit of a product."""
    return np.float32(a.scale * b.scale / made.scale)


def float_sum(a: Activation, b: Activation, made: Activation) -> Sum:
    """In float32, rounding by rounding."""
    first, second = a.scale / made.scale, b.scale / made.scale
    zeros = first * np.float32(a.zero) + second * np.float32(b.zero)
    return Sum(float(first), float(second), float(np.float32(made.zero) - zeros), 0)


def integer_sum(a: Activation, b: Activation, made: Activation) -> Sum:
    """In integers, half a unit included: shifting right rounds to nearest."""
    first, second = float(a.scale) / float(made.scale), float(b.scale) / float(made.scale)
    constant = made.zero - first * a.zero - second * b.zero + 0.5
    largest = 255 * (first + second) + abs(constant) + 1
    shift = int(np.floor(np.log2(_SUM_LIMIT / largest)))
    unit = 2.0**shift
    return Sum(round(first * unit), round(second * unit), round(constant * unit), shift)


def multiplier(factor: float) -> tuple[int, int]:
    """A positive factor as an integer of 31 bits and a shift.

    Example:
        >>> multiplier(0.75)
        (1610612736, 31)
    """
    part, exponent = np.frexp(factor)
    number, shift = round(float(part) * 2**31), 31 - int(exponent)
    if number == 1 << 31:
        number, shift = number >> 1, shift - 1
    if shift > _MOST_SHIFT:
        number, shift = number >> min(shift - _MOST_SHIFT, 31), _MOST_SHIFT
    return number, shift
