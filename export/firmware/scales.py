"""Factors that make codes of sums, in float32 as ONNX Runtime computes them, and how they lie in flash.

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
_SUM_LIMIT = 2.0**30
_CODES = 255
_WIDE_SUM = 1 << 23
SHORT_ZEROS = 13  # PRESS_NN_SHORT: bits that a float16 leaves of a float32
_FRACTION = 23  # bits of a float32
_TRIED, _MOST_MORE = 4, 127  # units to either side; what a correction may be
MOST_VALUE = 2.0**14  # of an output in integers, whose units are 2^-16
MOST_STEPS = 2.0**23  # of a code from zero; press_nn_arithmetic.h takes a half more


@dataclass(frozen=True)
class Sum:
    """``first * a + second * b + constant`` is the code of a sum; integers compute in units of ``2**-shift``."""

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


def sum_terms(a: Activation, b: Activation, made: Activation) -> Sum:
    """In float32, rounding by rounding."""
    first, second = a.scale / made.scale, b.scale / made.scale
    zeros = first * np.float32(a.zero) + second * np.float32(b.zero)
    constant = np.float32(made.zero) - zeros
    largest = _CODES * (float(first) + float(second)) + abs(float(constant)) + 1
    return Sum(float(first), float(second), float(constant), int(np.floor(np.log2(_SUM_LIMIT / largest))))


@dataclass(frozen=True)
class Column:
    """One number of every channel: `least`, and what is above that in `bits` bits."""

    least: int
    bits: int


@dataclass(frozen=True, eq=False)
class PackedChannels:
    """The channels of a layer, one after the other, each its bias and its factor.

    Attributes:
        data: All bits, the lowest of each number first.
        bias: Of signed integers.
        factor: Of the bits of a float32; with a unit, of those of a number whose product with it is about the factor,
            but for the last `SHORT_ZEROS` ones.
        unit: Bits of a float32, or 0.
        more: What the bits of the factor are more than those of the product, which is rounded down.
    """

    data: bytes
    bias: Column
    factor: Column
    unit: int
    more: Column

    def fields(self) -> dict[str, str]:
        """As `press_nn_weights` has them, but for the bits themselves."""
        return {
            "least_bias": str(self.bias.least),
            "least_factor": f"{self.factor.least}u",
            "unit": f"{self.unit}u",
            "bias_bits": str(self.bias.bits),
            "factor_bits": str(self.factor.bits),
            "more_bits": str(self.more.bits),
            "least_more": str(self.more.least),
        }


def pack_channels(
    bias: npt.NDArray[np.int64], factors: Sequence[float], parts: FloatArray | None = None
) -> PackedChannels:
    """The channels of a layer.

    Args:
        bias: Shape ``(outputs,)``, within 32 bits.
        factors: Of as many outputs, float32 values above 0.
        parts: Of as many outputs: what these are, or may be, a multiple of. Numbers of few bits take less room.

    Example:
        >>> packed = pack_channels(np.array([-3, 4]), [1.0, 1.5])
        >>> packed.bias, packed.factor.bits, len(packed.data)
        (Column(least=-3, bits=3), 23, 7)
        >>> pack_channels(np.array([-3, 4]), [0.3, 0.45], np.float32([1.0, 1.5])).factor.bits
        10
    """
    wide = np.asarray(bias, np.int64)
    bits = _float_bits(np.asarray(factors, np.float32))
    plain = _packed_columns([wide, bits, np.zeros_like(bits)], 0)
    found = None if parts is None else _of_parts(wide, bits, np.asarray(parts, np.float32))
    return plain if found is None or len(found.data) >= len(plain.data) else found


def _of_parts(
    bias: npt.NDArray[np.int64], bits: npt.NDArray[np.int64], parts: FloatArray
) -> PackedChannels | None:
    """With the unit that leaves the least to be said; None where parts are not short, or a factor is none of them."""
    short = _float_bits(parts)
    if (short % (1 << SHORT_ZEROS)).any() or not (parts >= np.finfo(np.float32).tiny).all():
        return None

    ratios = bits.astype(np.uint32).view(np.float32).astype(np.float64) / parts
    near = int(_float_bits(np.array([np.median(ratios)], np.float32))[0])
    units = [unit for unit in range(near - _TRIED, near + _TRIED + 1) if unit >> _FRACTION > 0]
    rests = [bits - _product_bits(short, unit) for unit in units]
    spreads = [int(rest.max() - rest.min()).bit_length() for rest in rests]
    best = int(np.argmin(spreads))
    if np.abs(rests[best]).max() > _MOST_MORE:
        return None
    return _packed_columns([bias, short >> SHORT_ZEROS, rests[best]], units[best])


def _product_bits(a: npt.NDArray[np.int64], b: int) -> npt.NDArray[np.int64]:
    """As in press_nn_conv.c."""
    one, mask = 1 << _FRACTION, (1 << _FRACTION) - 1
    part = ((a & mask) | one) * ((b & mask) | one)
    carry = part >> (2 * _FRACTION + 1)
    exponent = (a >> _FRACTION) + (b >> _FRACTION) + carry - 127
    return np.asarray((exponent << _FRACTION) | (part >> _FRACTION >> carry & mask), np.int64)


def _float_bits(values: FloatArray) -> npt.NDArray[np.int64]:
    return np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.int64)


def _packed_columns(columns: Sequence[npt.NDArray[np.int64]], unit: int) -> PackedChannels:
    """Bias, factor and more."""
    found = [Column(int(c.min()), int(c.max() - c.min()).bit_length()) for c in columns]
    rest = np.stack([c - column.least for c, column in zip(columns, found, strict=True)], axis=1)
    lengths = np.broadcast_to(np.array([column.bits for column in found]), rest.shape)
    data = pack_codewords(rest.reshape(-1), lengths.reshape(-1))
    return PackedChannels(data, found[0], found[1], unit, found[2])
