"""Encoding 1: symbols at a fixed width in bits."""

from export.bitstream import pack_fixed_width, unpack_fixed_width
from export.byte_parts import PartReader, PartWriter
from export.encodings.grid import Grid, read_grid, symbols_from_codes, tensor_from_symbols, write_grid
from export.encodings.spec import TensorSpec
from export.quantized import QuantizedTensor, Tensor


def encode(tensor: Tensor) -> PartWriter | None:
    """Grid, then every symbol in ``ceil(log2(n_symbols))`` bits."""
    if not isinstance(tensor, QuantizedTensor):
        return None
    writer = PartWriter()
    grid = write_grid(writer, tensor)
    return writer.add("payload", pack_fixed_width(symbols_from_codes(grid, tensor), bits=_width(grid)))


def decode(reader: PartReader, spec: TensorSpec) -> Tensor:
    """Undo `encode`."""
    grid = read_grid(reader, spec)
    symbols = unpack_fixed_width(reader.rest("payload"), bits=_width(grid), count=spec.size)
    return tensor_from_symbols(grid, symbols)


def _width(grid: Grid) -> int:
    return (grid.n_symbols - 1).bit_length()
