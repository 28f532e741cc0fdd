"""Encoding 2: one Huffman code over all symbols; for tensors with few zeros."""

import numpy as np

from export.byte_parts import PartReader, PartWriter
from export.encodings.grid import read_grid, symbols_from_codes, tensor_from_symbols, write_grid
from export.encodings.spec import TensorSpec
from export.huffman import (
    code_lengths,
    decode_symbols,
    encode_symbols,
    pack_code_lengths,
    unpack_code_lengths,
)
from export.quantized import QuantizedTensor, Tensor


def encode(tensor: Tensor) -> PartWriter | None:
    """Grid, code table, symbols."""
    if not isinstance(tensor, QuantizedTensor):
        return None
    writer = PartWriter()
    grid = write_grid(writer, tensor)
    symbols = symbols_from_codes(grid, tensor)
    lengths = code_lengths(np.bincount(symbols, minlength=grid.n_symbols))
    writer.add("tables", pack_code_lengths(lengths))
    return writer.add("payload", encode_symbols(symbols, lengths))


def decode(reader: PartReader, spec: TensorSpec) -> Tensor:
    """Undo `encode`."""
    grid = read_grid(reader, spec)
    table = reader.take("tables", (grid.n_symbols + 1) // 2)
    lengths = unpack_code_lengths(table, alphabet=grid.n_symbols)
    return tensor_from_symbols(grid, decode_symbols(reader.rest("payload"), lengths, count=spec.size))
