"""Encoding 3: CSR with relative column indices, Huffman codes over gaps and over values.

The matrix has one row per output channel. Rows follow each other without a break, so the gaps restore
positions, and positions restore ``indptr`` and ``indices``: row pointers take no bytes.

Source: Han, Mao and Dally 2016, "Deep Compression", arXiv:1510.00149.
"""

import struct

import numpy as np
import numpy.typing as npt

from export.byte_parts import PartReader, PartWriter
from export.csr import csr_from_dense, csr_from_positions, csr_positions, csr_to_dense
from export.encodings.grid import Grid, read_grid, write_grid
from export.encodings.spec import TensorSpec
from export.errors import DamagedArtifact
from export.huffman import (
    LengthArray,
    code_lengths,
    decode_symbols,
    encode_symbols,
    pack_code_lengths,
    unpack_code_lengths,
)
from export.quantized import QuantizedTensor, Tensor
from export.relative_index import gaps_from_positions, positions_from_gaps

GAP_BITS = range(1, 9)  # FORMAT.md, "csr+huffman"


def encode(tensor: Tensor) -> PartWriter | None:
    """Grid, counts, two code tables, two streams; None where the grid has no exact zero."""
    if not isinstance(tensor, QuantizedTensor):
        return None
    writer = PartWriter()
    grid = write_grid(writer, tensor)
    if not grid.has_zeros or 0 in tensor.shape:
        return None
    rows = tensor.shape[0]
    csr = csr_from_dense(tensor.codes.reshape(rows, -1), tensor.nonzero.reshape(rows, -1))
    gap_bits, gaps, gap_lengths = _smallest_gap_alphabet(csr_positions(csr))
    values = csr.data.astype(np.int64) - grid.lowest_code
    value_lengths = code_lengths(np.bincount(values, minlength=grid.n_codes))
    gap_stream = encode_symbols(gaps, gap_lengths)
    writer.add("header", struct.pack("<IIIB", values.size, gaps.size, len(gap_stream), gap_bits))
    writer.add("tables", pack_code_lengths(gap_lengths) + pack_code_lengths(value_lengths))
    return writer.add("payload", gap_stream).add("payload", encode_symbols(values, value_lengths))


def decode(reader: PartReader, spec: TensorSpec) -> Tensor:
    """Undo `encode`.

    Raises:
        DamagedArtifact: Counts, tables, streams or positions contradict each other or the shape.
    """
    grid = read_grid(reader, spec)
    nnz, n_gaps, gap_bytes, gap_bits = reader.unpack("IIIB")
    _check_counts(grid, nnz=nnz, n_gaps=n_gaps, gap_bits=gap_bits)
    gap_lengths = _read_table(reader, 1 << gap_bits)
    value_lengths = _read_table(reader, grid.n_codes)
    gaps = decode_symbols(reader.take("payload", gap_bytes), gap_lengths, count=n_gaps)
    values = decode_symbols(reader.rest("payload"), value_lengths, count=nnz)
    if gaps.size and gaps[-1] == (1 << gap_bits) - 1:
        raise DamagedArtifact("the last gap is a filler")
    positions = positions_from_gaps(gaps, gap_bits=gap_bits)
    if positions.size != nnz:
        raise DamagedArtifact(f"gaps lead to {positions.size:,} nonzeros, the header declares {nnz:,}")
    rows = spec.shape[0]
    csr = csr_from_positions(values + grid.lowest_code, positions, (rows, spec.size // rows))
    codes, support = csr_to_dense(csr)
    if not grid.has_support and np.any(csr.data == 0):
        raise DamagedArtifact("a stored nonzero has code 0")
    return grid.tensor(codes, support if grid.has_support else None)


def _smallest_gap_alphabet(
    positions: npt.NDArray[np.int64],
) -> tuple[int, npt.NDArray[np.int64], LengthArray]:
    """Gap width in bits, symbols and code of the width whose table and stream take the fewest bits."""
    best: tuple[int, int, npt.NDArray[np.int64], LengthArray] | None = None
    for gap_bits in GAP_BITS:
        gaps = gaps_from_positions(positions, gap_bits=gap_bits)
        counts = np.bincount(gaps, minlength=1 << gap_bits)
        lengths = code_lengths(counts)
        cost = int((counts * lengths).sum()) + 4 * lengths.size
        if best is None or cost < best[0]:
            best = (cost, gap_bits, gaps, lengths)
    assert best is not None  # GAP_BITS is not empty
    return best[1:]


def _check_counts(grid: Grid, *, nnz: int, n_gaps: int, gap_bits: int) -> None:
    """Bound what is allocated before any stream is decoded."""
    if gap_bits not in GAP_BITS:
        raise DamagedArtifact(f"gaps are {gap_bits} bits wide; expected {GAP_BITS[0]} to {GAP_BITS[-1]}")
    if not grid.has_zeros or grid.spec.size == 0:
        raise DamagedArtifact("a tensor without exact zeros cannot be stored as CSR")
    if not nnz <= n_gaps <= grid.spec.size:
        raise DamagedArtifact(f"{nnz:,} nonzeros and {n_gaps:,} gaps in {grid.spec.size:,} weights")


def _read_table(reader: PartReader, alphabet: int) -> LengthArray:
    return unpack_code_lengths(reader.take("tables", (alphabet + 1) // 2), alphabet=alphabet)
