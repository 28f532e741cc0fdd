"""Encodings 1 to 3, as version 1.0 wrote them; they are read for ever and no longer written.

Their streams have no lanes, their tables count all codes, and symbols are codes, not levels.
"""

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.bits import check_stream_end, unpack_fixed_width
from modelpress.export.coding.byte_parts import PartReader
from modelpress.export.coding.code_table import CodeTable
from modelpress.export.coding.huffman import check_code_lengths, unpack_code_lengths
from modelpress.export.coding.relative_index import check_positions, positions_in_pieces
from modelpress.export.coding.symbol_runs_numpy import decode_stream
from modelpress.export.errors import DamagedArtifact
from modelpress.export.press.encodings.gaps import GAP_BITS
from modelpress.export.press.encodings.grid import StoredGrid, read_grid_1_0
from modelpress.export.quantized import QuantizedTensor
from modelpress.export.tensor_spec import TensorSpec

Symbols = npt.NDArray[np.int16]

_AT_ONCE = 1 << 20  # symbols unpacked together, a multiple of 8


def decode_packed(reader: PartReader, spec: TensorSpec) -> QuantizedTensor:
    """Encoding 1: symbols at a fixed width.

    Raises:
        DamagedArtifact: The blob contradicts itself or its spec.
    """
    grid = read_grid_1_0(reader, spec)
    bits = (_n_symbols(grid) - 1).bit_length()

    symbols = np.empty(spec.size, np.int16)
    for start in range(0, spec.size, _AT_ONCE):
        count = min(_AT_ONCE, spec.size - start)
        piece = reader.take("payload", (bits * count + 7) // 8)
        symbols[start : start + count] = unpack_fixed_width(piece, bits=bits, count=count)

    return _from_symbols(grid, symbols)


def decode_huffman(reader: PartReader, spec: TensorSpec) -> QuantizedTensor:
    """Encoding 2: one Huffman code over all symbols.

    Raises:
        DamagedArtifact: As above.
    """
    grid = read_grid_1_0(reader, spec)
    table = _read_table(reader, _n_symbols(grid))
    return _from_symbols(grid, decode_symbols(reader.rest("payload"), table, count=spec.size))


def decode_csr_huffman(reader: PartReader, spec: TensorSpec) -> QuantizedTensor:
    """Encoding 3: gaps and values, a Huffman code for each.

    Raises:
        DamagedArtifact: As above.
    """
    grid = read_grid_1_0(reader, spec)
    nnz, n_gaps, gap_bytes, gap_bits = reader.unpack("IIIB")
    if gap_bits not in GAP_BITS:
        raise DamagedArtifact(f"gaps are {gap_bits} bits wide; expected {GAP_BITS[0]} to {GAP_BITS[-1]}")

    if not grid.has_zeros or spec.size == 0 or not nnz <= n_gaps <= spec.size:
        raise DamagedArtifact(f"{nnz:,} nonzeros and {n_gaps:,} gaps in {spec.size:,} weights")

    low, high = grid.code_range
    gap_table = _read_table(reader, 1 << gap_bits)
    value_table = _read_table(reader, high - low + 1)
    gaps = decode_symbols(reader.take("payload", gap_bytes), gap_table, count=n_gaps)
    values = decode_symbols(reader.rest("payload"), value_table, count=nnz)

    if gaps.size and gaps[-1] == (1 << gap_bits) - 1:
        raise DamagedArtifact("the last gap is a filler")
    if gaps.size - int(np.count_nonzero(gaps == (1 << gap_bits) - 1)) != nnz:
        raise DamagedArtifact(f"gaps do not lead to {nnz:,} nonzeros")
    if not grid.has_support and np.any(values == -low):
        raise DamagedArtifact("a stored nonzero has code 0")

    codes = np.zeros(spec.size, np.int16)
    support = np.zeros(spec.size, np.bool_)

    found = 0
    for positions in positions_in_pieces(gaps, gap_bits=gap_bits):
        check_positions(positions, spec.size)
        codes[positions] = values[found : found + positions.size] + np.int16(low)
        support[positions] = True
        found += positions.size

    return grid.tensor(codes, support if grid.has_support else None)


def decode_symbols(stream: bytes, table: CodeTable, *, count: int) -> Symbols:
    """All symbols of a stream without lanes.

    Raises:
        DamagedArtifact: The stream ends early, or bits are left over.

    Example:
        >>> table = CodeTable(0, np.array([1, 0, 2, 2], np.uint8))
        >>> decode_symbols(bytes.fromhex("32"), table, count=4)   # 0 10 0 11
        array([0, 2, 0, 3], dtype=int16)
    """
    check_code_lengths(table.lengths, n_symbols=count)
    if count == 0 or table.is_silent:
        check_stream_end(stream, n_bits=0)
        return np.full(count, np.flatnonzero(table.lengths)[0] if count else 0, np.int16)
    if count > 8 * len(stream):  # every codeword has a bit: also bounds what is allocated
        raise DamagedArtifact(f"bit stream of {len(stream):,} bytes cannot hold {count:,} symbols")

    symbols, n_bits = decode_stream(np.frombuffer(stream, np.uint8), table.single, 0, count)
    check_stream_end(stream, n_bits=n_bits)
    return symbols.view(np.int16)


def _read_table(reader: PartReader, alphabet: int) -> CodeTable:
    lengths = unpack_code_lengths(reader.take("tables", (alphabet + 1) // 2), alphabet=alphabet)
    return CodeTable(0, lengths)


def _n_symbols(grid: StoredGrid) -> int:
    low, high = grid.code_range
    return high - low + 1 + grid.has_support


def _from_symbols(grid: StoredGrid, symbols: Symbols) -> QuantizedTensor:
    low, _ = grid.code_range
    if symbols.size and int(symbols.max()) >= _n_symbols(grid):
        raise DamagedArtifact(f"symbol {int(symbols.max())} is outside 0..{_n_symbols(grid) - 1}")
    if not grid.has_support:
        return grid.tensor(symbols + np.int16(low), None)

    support = symbols > 0
    return grid.tensor((symbols - np.int16(1 - low)) * support, support)
