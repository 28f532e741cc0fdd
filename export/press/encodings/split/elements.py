"""What an element of an array is made of: a level, and bits that no code makes shorter.

See FORMAT.md, "Split values".
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from modelpress.export.coding.core import core
from modelpress.export.errors import DamagedArtifact
from modelpress.export.files.blocks import blocks, is_of_numpy
from modelpress.export.press.encodings.levels import Levels
from modelpress.export.press.encodings.split.mantissas import packed

Array = npt.NDArray[np.generic]
Words = npt.NDArray[np.unsignedinteger]

MAX_LEVEL = 256
MANTISSA_BITS: dict[int, int] = {  # by ONNX TensorProto.DataType
    TensorProto.FLOAT: 23,
    TensorProto.FLOAT16: 10,
    TensorProto.DOUBLE: 52,
    TensorProto.BFLOAT16: 7,
}
_TYPES = {bits: onnx_type for onnx_type, bits in MANTISSA_BITS.items()}
_LOOKED_AT = 1 << 12  # elements that tell whether few values may occur


@dataclass(frozen=True)
class Floats:
    """Sign and exponent as a level, `raw_bits` of the mantissa as they are."""

    dtype: np.dtype[np.generic]
    mantissa_bits: int  # of the type
    exponent: int  # of level 1 and -1
    span: int  # exponents that follow
    raw_bits: int

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest level."""
        return -self.span - 1, self.span + 1

    def fields(self) -> bytes:
        """What the file says of it."""
        return struct.pack("<HBB", self.exponent, self.span, self.raw_bits)

    def levels(self, words: Words) -> Levels:
        """Levels of elements, given as their bits."""
        functions = core()
        if functions is not None:
            levels = np.empty(words.size, np.int16)
            functions.float_levels(words, _TYPES[self.mantissa_bits], self.exponent, levels)
            return levels

        exponents = words >> words.dtype.type(self.mantissa_bits)
        sign = words.dtype.type(1 << 8 * words.dtype.itemsize - 1 - self.mantissa_bits)
        magnitudes = (exponents & words.dtype.type(sign - 1)).astype(np.int16) - np.int16(self.exponent - 1)
        return np.where(words == 0, np.int16(0), np.where(exponents & sign, -magnitudes, magnitudes))

    def mantissas(self, words: Words) -> bytes:
        """Of all elements but +0, `raw_bits` of each, low half first."""
        functions = core()
        if functions is not None:
            return functions.write_mantissas(words, _TYPES[self.mantissa_bits], self.raw_bits)

        kept = words[words != 0] & words.dtype.type((1 << self.mantissa_bits) - 1)
        return packed(kept >> words.dtype.type(self.mantissa_bits - self.raw_bits), self.raw_bits)

    def words(self, levels: Levels, mantissas: Words) -> Words:
        """Elements, from their levels and the mantissas of those that are not +0; raises `DamagedArtifact`."""
        kind = mantissas.dtype.type
        words = np.zeros(levels.size, mantissas.dtype)
        stored = levels[levels != 0].astype(np.int64)
        exponents = (np.abs(stored) + self.exponent - 1).astype(mantissas.dtype)
        made = (exponents << kind(self.mantissa_bits)) | (
            mantissas << kind(self.mantissa_bits - self.raw_bits)
        )
        made |= (stored < 0).astype(mantissas.dtype) << kind(8 * mantissas.dtype.itemsize - 1)
        if not made.all():
            raise DamagedArtifact("a zero is not written as one")

        words[levels != 0] = made
        return words


@dataclass(frozen=True)
class Integers:
    """The elements are levels."""

    dtype: np.dtype[np.generic]
    most: int

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest level."""
        return -self.most, self.most

    def fields(self) -> bytes:
        """What the file says of it."""
        return struct.pack("<H", self.most)

    def levels(self, words: Words) -> Levels:
        """Levels of elements, given as their bits."""
        return words.view(self.dtype).astype(np.int16)

    def words(self, levels: Levels) -> Words:
        """Undo `levels`; raises `DamagedArtifact`."""
        made = levels.astype(self.dtype)
        turned = self.dtype.kind == "u" and bool(np.any(levels < 0))  # 64 bits and back would hide it
        if turned or not np.array_equal(made.astype(np.int64), levels):
            raise DamagedArtifact(f"a level is no {self.dtype}")
        return words_of(made)


@dataclass(frozen=True)
class Table:
    """A level is the place of a value in a table, counted from a centre."""

    dtype: np.dtype[np.generic]
    values: Words
    centre: int

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest level."""
        return -self.centre, self.values.size - 1 - self.centre

    def fields(self) -> bytes:
        """What the file says of it."""
        return (
            struct.pack("<HH", self.values.size, self.centre)
            + self.values.astype(self.values.dtype.newbyteorder("<")).tobytes()
        )

    def levels(self, words: Words) -> Levels:
        """Levels of elements, given as their bits."""
        order = np.argsort(self.values)
        return (order[np.searchsorted(self.values[order], words)] - self.centre).astype(np.int16)

    def words(self, levels: Levels) -> Words:
        """Undo `levels`; raises `DamagedArtifact`."""
        return self.values[levels + self.centre]


Kind = Floats | Integers | Table


def table_of(array: Array, dtype: np.dtype[np.generic]) -> Table | None:
    """None where there are many values; `dtype`: of the numbers that are stored."""
    if np.unique(words_of(array.reshape(-1)[:_LOOKED_AT])).size > 2 * MAX_LEVEL:
        return None

    values: Words = words_of(array.reshape(-1)[:0])
    for block in blocks(array):
        values = np.unique(np.concatenate([values, np.unique(words_of(block))]))
        if values.size > 2 * MAX_LEVEL:
            return None

    numbers: npt.NDArray[Any] = values.view(array.dtype.newbyteorder("="))
    if not is_of_numpy(array.dtype):
        numbers = numbers.astype(np.float32)
    order = np.lexsort((values, numbers))  # by value, then by bits; NaN last
    values, numbers = values[order], numbers[order]
    with np.errstate(invalid="ignore"):  # a NaN is not below
        below = int(np.count_nonzero(numbers < 0))
    centre = int(np.clip(below, max(values.size - 1 - MAX_LEVEL, 0), min(values.size - 1, MAX_LEVEL)))
    return Table(dtype, values, centre)


def integers_of(array: Array, dtype: np.dtype[np.generic]) -> Integers | None:
    """None where an element is too large to be a level."""
    low, high = int(array.min()), int(array.max())
    most = max(-low, high, 0)
    return Integers(dtype, most) if most <= MAX_LEVEL else None


def floats_of(array: Array, dtype: np.dtype[np.generic], bits: int) -> Floats | None:
    """None where exponents differ too much, or there is nothing but zeros; `bits`: of a mantissa."""
    lowest, highest, mantissas = 1 << 16, -1, 0
    for block in blocks(array):
        low, high, used, n = _scanned(words_of(block), bits)
        if n:
            lowest, highest, mantissas = min(lowest, low), max(highest, high), mantissas | used

    if highest < 0 or highest - lowest >= MAX_LEVEL:
        return None
    unused = bits if not mantissas else (mantissas & -mantissas).bit_length() - 1
    return Floats(dtype, bits, lowest, highest - lowest, bits - unused)


def _scanned(words: Words, bits: int) -> tuple[int, int, int, int]:
    """Of elements but +0: lowest and highest exponent, the bits of mantissas that occur, how many elements."""
    functions = core()
    if functions is not None:
        return functions.scan_floats(words, _TYPES[bits])

    words = words[words != 0]
    if not words.size:
        return 0, 0, 0, 0
    exponents = words << words.dtype.type(1) >> words.dtype.type(bits + 1)
    mantissas = int(np.bitwise_or.reduce(words)) & (1 << bits) - 1
    return int(exponents.min()), int(exponents.max()), mantissas, words.size


def words_of(array: Array) -> Words:
    """The bits of the elements, in this machine's byte order, flat."""
    native = np.ascontiguousarray(array.reshape(-1)).astype(array.dtype.newbyteorder("="), copy=False)
    return native.view(np.dtype(f"u{array.dtype.itemsize}"))
