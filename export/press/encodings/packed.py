"""Encoding 5: levels at a fixed width in bits."""

from typing import TypeVar

import numpy as np

from modelpress.export.coding.bits import pack_fixed_width, unpack_fixed_width
from modelpress.export.coding.byte_parts import PartReader, PartWriter
from modelpress.export.coding.core import core
from modelpress.export.press.encodings.grid import read_grid
from modelpress.export.press.encodings.levels import Levels, LevelSink, LevelSource, Sink, source_of
from modelpress.export.quantized import QuantizedTensor
from modelpress.export.tensor_spec import TensorSpec

_T = TypeVar("_T")
_AT_ONCE = 1 << 20  # elements, a multiple of 8, so that every piece ends with a byte


def size(tensor: QuantizedTensor | LevelSource) -> int:
    """Bytes of the blob."""
    source = source_of(tensor)
    return source.front_bytes + (source.spec.size * _width(source.bounds) + 7) // 8


def encode(tensor: QuantizedTensor | LevelSource) -> PartWriter:
    """Front, then every level less the lowest one in ``ceil(log2(n))`` bits, `n` being the number of levels."""
    source = source_of(tensor)
    writer = PartWriter()
    source.write_front(writer)
    lowest, _ = source.bounds

    for start in range(0, source.spec.size, _AT_ONCE):
        levels = source.levels(start, min(start + _AT_ONCE, source.spec.size))
        writer.add("payload", _packed(levels, lowest, _width(source.bounds)))

    return writer


def _packed(levels: Levels, lowest: int, bits: int) -> bytes:
    functions = core()
    if functions is not None:
        return functions.write_packed(levels, lowest, bits)
    return pack_fixed_width(levels - np.int16(lowest), bits=bits)


def decode(reader: PartReader, spec: TensorSpec) -> QuantizedTensor:
    """Undo `encode`.

    Raises:
        DamagedArtifact: The blob contradicts itself or its spec.
    """
    return decode_levels(reader, LevelSink(read_grid(reader, spec)))


def decode_levels(reader: PartReader, sink: Sink[_T]) -> _T:
    """What comes after the front.

    Raises:
        DamagedArtifact: As for `decode`.
    """
    lowest, _ = sink.bounds
    width = _width(sink.bounds)
    for start in range(0, sink.spec.size, _AT_ONCE):
        count = min(_AT_ONCE, sink.spec.size - start)
        piece = reader.take("payload", (count * width + 7) // 8)
        symbols = unpack_fixed_width(piece, bits=width, count=count)
        sink.put(start, (symbols + lowest).astype(np.int16))

    return sink.tensor()


def _width(bounds: tuple[int, int]) -> int:
    lowest, highest = bounds
    return (highest - lowest).bit_length()
