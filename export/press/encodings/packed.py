"""Encoding 5: levels at a fixed width in bits."""

import numpy as np

from modelpress.export.coding.bits import pack_fixed_width, unpack_fixed_width
from modelpress.export.coding.byte_parts import PartReader, PartWriter
from modelpress.export.coding.core import core
from modelpress.export.press.encodings.grid import StoredGrid, grid_bytes, grid_of, read_grid, write_grid
from modelpress.export.press.encodings.levels import Levels, LevelSink, level_bounds, levels_of
from modelpress.export.quantized import QuantizedTensor, Tensor
from modelpress.export.tensor_spec import TensorSpec

_AT_ONCE = 1 << 20  # elements, a multiple of 8, so that every piece ends with a byte


def size(tensor: QuantizedTensor) -> int:
    """Bytes of the blob."""
    grid = grid_of(tensor)
    return grid_bytes(grid) + (tensor.codes.size * _width(grid) + 7) // 8


def encode(tensor: QuantizedTensor) -> PartWriter:
    """Grid, then every level less the lowest one in ``ceil(log2(n))`` bits, `n` being the number of levels."""
    grid = grid_of(tensor)
    writer = PartWriter()
    write_grid(writer, grid)
    lowest, _ = level_bounds(grid)

    for start in range(0, tensor.codes.size, _AT_ONCE):
        levels = levels_of(tensor, grid, start, min(start + _AT_ONCE, tensor.codes.size))
        writer.add("payload", _packed(levels, lowest, _width(grid)))

    return writer


def _packed(levels: Levels, lowest: int, bits: int) -> bytes:
    functions = core()
    if functions is not None:
        return functions.write_packed(levels, lowest, bits)
    return pack_fixed_width(levels - np.int16(lowest), bits=bits)


def decode(reader: PartReader, spec: TensorSpec) -> Tensor:
    """Undo `encode`.

    Raises:
        DamagedArtifact: The blob contradicts itself or its spec.
    """
    grid = read_grid(reader, spec)
    lowest, _ = level_bounds(grid)
    sink = LevelSink(grid)

    for start in range(0, spec.size, _AT_ONCE):
        count = min(_AT_ONCE, spec.size - start)
        piece = reader.take("payload", (count * _width(grid) + 7) // 8)
        symbols = unpack_fixed_width(piece, bits=_width(grid), count=count)
        sink.put(start, (symbols + lowest).astype(np.int16))

    return sink.tensor()


def _width(grid: StoredGrid) -> int:
    lowest, highest = level_bounds(grid)
    return (highest - lowest).bit_length()
