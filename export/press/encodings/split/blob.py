"""Encodings 14 and 15: tensors that are not quantized, each element split into a level and bits as they are.

Sign and exponent of a float are a short signed integer, as the codes of a grid are: neighbours resemble each other,
and pruned weights are zeros. They are written as levels, by any encoding of levels; the mantissas, in which nothing
is to be found, follow as they are, without those of the zeros. Small integers are levels themselves, and of a tensor
with few distinct values a level is the place in a table of them. Every bit is kept, infinities and NaN with theirs.
"""

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto

from modelpress.export.coding.byte_parts import PartReader, PartWriter
from modelpress.export.coding.varint import pack_varint, unpack_varint
from modelpress.export.errors import DamagedArtifact
from modelpress.export.files.blocks import blocks
from modelpress.export.press.encodings import huffman_blob, mixed_contexts, packed
from modelpress.export.press.encodings.bitmap import BitmapCoder
from modelpress.export.press.encodings.dense import DenseCoder
from modelpress.export.press.encodings.file_state import FileState
from modelpress.export.press.encodings.gaps import GapCoder
from modelpress.export.press.encodings.kernels.kernel_mask import KernelMaskCoder
from modelpress.export.press.encodings.kernels.sign_rows import SignRowCoder
from modelpress.export.press.encodings.levels import Levels, Sink
from modelpress.export.press.encodings.slab_coder import SlabCoder
from modelpress.export.press.encodings.split.elements import (
    MANTISSA_BITS,
    MAX_LEVEL,
    Array,
    Floats,
    Integers,
    Kind,
    Table,
    floats_of,
    integers_of,
    table_of,
    words_of,
)
from modelpress.export.press.encodings.split.mantissas import unpacked
from modelpress.export.tensor_spec import CARRIERS, INTEGER_TYPES, ONNX_TYPES, TensorSpec, carrier_of

_PACKED, _MIXED, _LINKED = 5, 10, 20  # encodings of the levels
_FLOATS, _INTEGERS, _TABLE = 0, 1, 2  # kinds
_NUMBERS: Mapping[type[Kind], int] = {Floats: _FLOATS, Integers: _INTEGERS, Table: _TABLE}
_CODERS: dict[int, type[SlabCoder]] = {
    kind.number: kind for kind in (DenseCoder, GapCoder, BitmapCoder, KernelMaskCoder, SignRowCoder)
}


def sources_of(array: Array) -> list["SplitSource"]:
    """The ways in which this array can be split, each still to be combined with an encoding of levels."""
    onnx_type = ONNX_TYPES.get(array.dtype.newbyteorder("<"))
    if onnx_type in (None, TensorProto.BOOL) or not array.size:
        return []

    dtype, numbers = CARRIERS[onnx_type], carrier_of(array)
    # of integers of a byte, and of fewer bits, a table says nothing
    table = None if onnx_type in INTEGER_TYPES and dtype.itemsize == 1 else table_of(array, dtype)
    kinds: list[Kind | None] = [table]
    if onnx_type in INTEGER_TYPES:
        kinds += [integers_of(numbers, dtype)]
    elif onnx_type in MANTISSA_BITS and table is None:
        kinds += [floats_of(numbers, dtype, MANTISSA_BITS[onnx_type])]
    return [SplitSource(numbers, kind) for kind in kinds if kind is not None]


# --- Writing


class SplitSource:
    """Levels of an array that is split one way; `inner` is the encoding that will write them."""

    def __init__(self, array: Array, kind: Kind) -> None:
        self._array, self.kind = array.reshape(-1), kind
        self.spec = TensorSpec(tuple(map(int, array.shape)), ONNX_TYPES[kind.dtype])
        self.inner = _PACKED
        self._n_raw = 0
        if isinstance(kind, Floats):
            n_stored = sum(int(np.count_nonzero(words_of(block))) for block in blocks(self._array))
            self._n_raw = (n_stored * kind.raw_bits + 7) // 8

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest level."""
        return self.kind.bounds

    @property
    def front_bytes(self) -> int:
        """All but what the levels take."""
        lengths = len(pack_varint(self._n_raw)) if isinstance(self.kind, Floats) else 0
        return 2 + len(self.kind.fields()) + lengths + self._n_raw

    def levels(self, start: int, stop: int) -> Levels:
        """Some of the levels."""
        return self.kind.levels(words_of(self._array[start:stop]))

    def write_front(self, writer: PartWriter) -> None:
        """What the levels stand for, and the bits that go with them."""
        writer.add("header", bytes([self.inner, _NUMBERS[type(self.kind)]]))
        if isinstance(self.kind, Table):
            fields = self.kind.fields()
            writer.add("header", fields[:4])
            writer.add("tables", fields[4:])
            return

        writer.add("header", self.kind.fields())
        if isinstance(self.kind, Floats):
            writer.add("header", pack_varint(self._n_raw))
            writer.add("payload", self.kind.mantissas(words_of(self._array)))


def encode_mixed(source: SplitSource, state: FileState, *, linked: bool = False) -> PartWriter:
    """Levels in mixed contexts, linked or not."""
    source.inner = _LINKED if linked else _MIXED
    return mixed_contexts.encode(source, state, linked=linked)


def encode_packed(source: SplitSource) -> PartWriter:
    """Levels of fixed width."""
    source.inner = _PACKED
    return packed.encode(source)


def encode_huffman(
    source: SplitSource, plan: huffman_blob.HuffmanPlan, shared: huffman_blob.Shared
) -> PartWriter:
    """Levels in a Huffman encoding."""
    source.inner = plan.coder.number
    return huffman_blob.write(source, plan, shared)


# --- Reading


class _SplitSink:
    """Puts elements together from levels, in order."""

    def __init__(self, spec: TensorSpec, kind: Kind, raw: bytes) -> None:
        self.spec, self._kind, self._raw = spec, kind, raw
        self._words = np.zeros(spec.size, np.dtype(f"u{CARRIERS[spec.onnx_type].itemsize}"))
        self._levels = np.zeros(spec.size, np.int16)

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest level."""
        return self._kind.bounds

    def put(self, start: int, levels: Levels) -> None:
        """Take levels."""
        lowest, highest = self.bounds
        if levels.size and not lowest <= int(levels.min()) <= int(levels.max()) <= highest:
            raise DamagedArtifact(f"a level is outside {lowest}..{highest}")
        self._levels[start : start + levels.size] = levels

    def tensor(self) -> Array:
        """All elements."""
        if isinstance(self._kind, Floats):
            n_stored = int(np.count_nonzero(self._levels))
            words = self._kind.words(
                self._levels, unpacked(self._raw, self._kind.raw_bits, n_stored).astype(self._words.dtype)
            )
        else:
            words = self._kind.words(self._levels)
        return words.view(self._kind.dtype.newbyteorder("=")).reshape(self.spec.shape)


def decode(reader: PartReader, spec: TensorSpec, state: FileState) -> Array:
    """Undo `encode_packed` and `encode_huffman`.

    Raises:
        DamagedArtifact: The blob contradicts itself or its spec.
    """
    inner, sink = read_front(reader, spec)
    if inner == _PACKED:
        return packed.decode_levels(reader, sink)
    if inner not in _CODERS:
        raise DamagedArtifact(f"levels in encoding {inner} are not defined here")
    return huffman_blob.decode_levels(reader, sink, _CODERS[inner], state.shared)


def decode_mixed(reader: PartReader, spec: TensorSpec, state: FileState) -> Array:
    """Undo `encode_mixed`.

    Raises:
        DamagedArtifact: As for `decode`.
    """
    return _decode_contexts(reader, spec, state, _MIXED)


def decode_linked(reader: PartReader, spec: TensorSpec, state: FileState) -> Array:
    """Undo `encode_mixed` under linked contexts.

    Raises:
        DamagedArtifact: As for `decode`.
    """
    return _decode_contexts(reader, spec, state, _LINKED)


def _decode_contexts(reader: PartReader, spec: TensorSpec, state: FileState, expected: int) -> Array:
    inner, sink = read_front(reader, spec)
    if inner != expected:
        raise DamagedArtifact(f"levels in encoding {inner} are not defined here")
    mixed_contexts.check_rows(spec)
    return mixed_contexts.decode_levels(reader, sink, state, linked=expected == _LINKED)


def read_front(reader: PartReader, spec: TensorSpec) -> tuple[int, Sink[Array]]:
    """The encoding of the levels, and where they go.

    Raises:
        DamagedArtifact: As for `decode`.
    """
    if spec.onnx_type == TensorProto.BOOL:
        raise DamagedArtifact("booleans are not split")

    dtype = CARRIERS[spec.onnx_type]
    inner, number = reader.unpack("BB")
    raw = b""
    kind: Kind
    if number == _FLOATS and spec.onnx_type in MANTISSA_BITS:
        kind = _read_floats(reader, dtype, MANTISSA_BITS[spec.onnx_type])
        raw = reader.take("payload", unpack_varint(reader, "header"))
    elif number == _INTEGERS and spec.onnx_type in INTEGER_TYPES:
        kind = Integers(dtype, *reader.unpack("H"))
    elif number == _TABLE:
        kind = _read_table(reader, dtype)
    else:
        raise DamagedArtifact(f"split values of kind {number} are not defined for {dtype}")

    if max(map(abs, kind.bounds)) > MAX_LEVEL:
        raise DamagedArtifact(f"split values have levels beyond {MAX_LEVEL}")
    return inner, _SplitSink(spec, kind, raw)


def _read_floats(reader: PartReader, dtype: np.dtype[np.generic], mantissa_bits: int) -> Floats:
    kind = Floats(dtype, mantissa_bits, *reader.unpack("HBB"))
    exponents = 1 << 8 * dtype.itemsize - 1 - kind.mantissa_bits
    if kind.raw_bits > kind.mantissa_bits or kind.exponent + kind.span >= exponents:
        raise DamagedArtifact("exponents or mantissas of split values are beyond their type")
    return kind


def _read_table(reader: PartReader, dtype: np.dtype[np.generic]) -> Table:
    n, centre = reader.unpack("HH")
    if centre >= n:
        raise DamagedArtifact("the centre of a table of values is outside")
    stored = np.dtype(f"<u{dtype.itemsize}")
    values = np.frombuffer(reader.take("tables", n * dtype.itemsize), stored)
    return Table(dtype, values.astype(stored.newbyteorder("=")), centre)
