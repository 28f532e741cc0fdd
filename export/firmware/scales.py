"""Factors that make codes of sums, in float32 as ONNX Runtime computes them or in integers; and how they lie in flash.

The order of the roundings is that of ONNX Runtime's kernels: see `QLinearConv`, `QLinearAdd` and
`QLinearGlobalAveragePool` there.

Biases are spread over some 16 bits, and the factors of one layer lie within a few powers of two: as integers less the
smallest of the layer, both take fewer bits than their types have.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.bits import pack_codewords
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


@dataclass(frozen=True)
class Column:
    """One number of every channel: `least`, and what is above that in `bits` bits."""

    least: int
    bits: int


@dataclass(frozen=True, eq=False)
class PackedChannels:
    """The channels of a layer, one after the other, each its bias, its factor and, of integers, its shift.

    Attributes:
        data: All bits, the lowest of each number first.
        bias: Of signed integers.
        factor: Of the bits of a float32, or of a multiplier.
        shift: Of integers only.
    """

    data: bytes
    bias: Column
    factor: Column
    shift: Column | None

    def fields(self) -> dict[str, str]:
        """As `press_nn_weights` has them, but for the bits themselves."""
        shift = self.shift or Column(0, 0)
        return {
            "least_bias": str(self.bias.least),
            "least_factor": f"{self.factor.least}u",
            "least_shift": str(shift.least),
            "bias_bits": str(self.bias.bits),
            "factor_bits": str(self.factor.bits),
            "shift_bits": str(shift.bits),
        }


def pack_channels(bias: npt.NDArray[np.int64], factors: Sequence[float], *, integers: bool) -> PackedChannels:
    """The channels of a layer.

    Args:
        bias: Shape ``(outputs,)``, within 32 bits.
        factors: Of as many outputs; float32 values, or for `integers` any.
        integers: Whether factors become multipliers and shifts.

    Example:
        >>> packed = pack_channels(np.array([-3, 4]), [1.0, 1.5], integers=False)
        >>> packed.bias, packed.factor.bits, len(packed.data)
        (Column(least=-3, bits=3), 23, 7)
    """
    columns = [np.asarray(bias, np.int64)]
    if integers:
        pairs = np.array([multiplier(factor) for factor in factors], np.int64).reshape(-1, 2)
        columns += [pairs[:, 0], pairs[:, 1]]
    else:
        columns.append(np.asarray(factors, np.float32).view(np.uint32).astype(np.int64))

    found = [Column(int(c.min()), int(c.max() - c.min()).bit_length()) for c in columns]
    rest = np.stack([c - column.least for c, column in zip(columns, found, strict=True)], axis=1)
    lengths = np.broadcast_to(np.array([column.bits for column in found]), rest.shape)
    data = pack_codewords(rest.reshape(-1), lengths.reshape(-1))
    return PackedChannels(data, found[0], found[1], found[2] if integers else None)
