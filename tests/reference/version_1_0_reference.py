"""Encodings 1 to 3 of version 1.0: symbols are codes. Each returns codes, None for an exact zero of the support."""

from tests.reference.quantized_reference import levels_at_gaps
from tests.reference.streams import Stream, canonical_code, lengths_of_four_bits, require


def meanings(grid):
    """What each symbol stands for."""
    return ([None] if grid.has_support else []) + list(grid.codes)


def read_symbols(stream, table, count):
    """A stream of symbols; nothing was written under a table with exactly one codeword."""
    if len(table.symbols) == 1:
        return list(table.symbols.values()) * count
    return [table.decode(stream) for _ in range(count)]


def packed(stream, grid, n_elements):
    """Encoding 1."""
    meaning = meanings(grid)
    width = (len(meaning) - 1).bit_length()
    symbols = [stream.number(width) for _ in range(n_elements)]
    require(all(symbol < len(meaning) for symbol in symbols), "symbol stands for no code")
    return [meaning[symbol] for symbol in symbols]


def huffman(stream, grid, n_elements):
    """Encoding 2."""
    meaning = meanings(grid)
    table = canonical_code(0, lengths_of_four_bits(stream, len(meaning)))
    return [meaning[symbol] for symbol in read_symbols(stream, table, n_elements)]


def csr_huffman(stream, grid, n_elements):
    """Encoding 3."""
    require(n_elements, "csr+huffman of no elements")
    require(grid.offset is None or grid.has_support, "csr+huffman on a grid without exact zero")
    n_stored, n_gaps, gap_bytes = stream.integer(4), stream.integer(4), stream.integer(4)
    require(n_gaps <= n_elements, "more gap symbols than weights")
    gap_width = stream.integer(1)
    require(1 <= gap_width <= 8, "gap width is outside 1..8")
    filler = 2**gap_width - 1
    gap_table = canonical_code(0, lengths_of_four_bits(stream, filler + 1))
    value_table = canonical_code(grid.codes[0], lengths_of_four_bits(stream, len(grid.codes)))
    gap_stream = Stream(stream.take(gap_bytes))
    gaps = read_symbols(gap_stream, gap_table, n_gaps)
    gap_stream.finish()
    require(sum(gap != filler for gap in gaps) == n_stored, "gaps and entries differ in number")
    stored = read_symbols(stream, value_table, n_stored)
    require(grid.has_support or 0 not in stored, "a stored code is 0")
    return levels_at_gaps(gaps, filler, stored, n_elements, zero=None if grid.has_support else 0)
