"""Encodings 5 to 9: levels in fixed width, as runs, as gaps, beside a bitmap, beside kernel masks."""

from tests.reference import streams
from tests.reference.streams import Stream, read_code_table, read_run, read_slabs, require


def packed(stream, grid, n_elements, _):
    """Encoding 5."""
    levels = [level for channel in grid.codes_of_levels() for level in channel]
    lowest, highest = min(levels, default=0), max(levels, default=0)
    width = (highest - lowest).bit_length()  # ⌈log2(n)⌉ of n levels
    return [lowest + stream.number(width) for _ in range(n_elements)]


def read_group(stream, shared, n_tables):
    """Code tables of one group: its own, or those that it refers to."""
    reference = stream.integer(1)
    if reference == 0:
        return [read_code_table(stream) for _ in range(n_tables)]
    require(reference <= len(shared), "reference to a group that no chunk holds")
    tables = shared[reference - 1]
    require(len(tables) == n_tables, "the shared group has another number of tables")
    return tables


def read_symbol_table(stream, shared, n_symbols):
    (table,) = read_group(stream, shared, 1)
    require(all(0 <= symbol < n_symbols for symbol in table.symbols.values()), "symbol out of range")
    return table


def read_nonzero_tables(stream, shared, n_tables):
    tables = read_group(stream, shared, n_tables)
    require(all(0 not in table.symbols.values() for table in tables), "codeword for the zero level")
    return tables


def huffman(stream, grid, n_elements, shared):
    """Encoding 6."""
    (table,) = read_group(stream, shared, 1)
    levels = []
    for slab, n in read_slabs(stream, n_elements, streams.SLAB_ELEMENTS):
        levels += read_run(slab, table, n)
        slab.finish()
    return levels


def csr_huffman(stream, grid, n_elements, shared):
    """Encoding 7."""
    gap_width = stream.integer(1)
    require(1 <= gap_width <= 8, "gap width is outside 1..8")
    filler = 2**gap_width - 1
    gap_table = read_symbol_table(stream, shared, filler + 1)
    (level_table,) = read_nonzero_tables(stream, shared, 1)
    levels = []
    for slab, n in read_slabs(stream, n_elements, streams.SLAB_ELEMENTS):
        n_gaps = slab.varint()
        require(n_gaps <= n, "more gaps than elements")
        gaps = read_run(slab, gap_table, n_gaps)
        nonzero = read_run(slab, level_table, sum(gap != filler for gap in gaps))
        slab.finish()
        levels += levels_at_gaps(gaps, filler, nonzero, n)
    return levels


def levels_at_gaps(gaps, filler, nonzero, n, zero=0):
    require(not gaps or gaps[-1] != filler, "the last gap is a filler")
    levels, position, values = [zero] * n, 0, iter(nonzero)
    for gap in gaps:
        position += gap
        if gap != filler:
            require(position < n, "a position is outside the slab")
            levels[position] = next(values)
            position += 1
    return levels


def bitmap_huffman(stream, grid, n_elements, shared):
    """Encoding 8."""
    (table,) = read_nonzero_tables(stream, shared, 1)
    levels = []
    for slab, n in read_slabs(stream, n_elements, streams.SLAB_ELEMENTS):
        bitmap = Stream(slab.take((n + 7) // 8))
        present = [bitmap.bit() for _ in range(n)]
        bitmap.finish()
        nonzero = iter(read_run(slab, table, sum(present)))
        slab.finish()
        levels += [next(nonzero) if bit else 0 for bit in present]
    return levels


def kernel_masks(stream, grid, n_elements, shared):
    """Encoding 9."""
    taps, row, contexts = stream.integer(1), stream.integer(1), stream.integer(1)
    require(1 <= row <= taps <= 9, "taps or row width out of range")
    require(contexts in {1, 9}, "contexts are neither 1 nor 9")
    mask_table = read_symbol_table(stream, shared, 2**taps)
    level_tables = read_nonzero_tables(stream, shared, contexts)
    levels = []
    for slab, n in read_slabs(stream, n_elements, taps * (streams.KERNEL_SLAB_ELEMENTS // taps)):
        levels += levels_of_kernels(slab, n, (taps, row), mask_table, level_tables)
        slab.finish()
    return levels


def levels_of_kernels(slab, n, kernel, mask_table, level_tables):
    taps, row = kernel
    n_kernels = -(-n // taps)
    masks = read_run(slab, mask_table, n_kernels)
    levels = [0] * (n_kernels * taps)
    require(not any(masks[k // taps] >> k % taps & 1 for k in range(n, len(levels))), "level past the end")
    for tap in range(taps):
        here = [k * taps + tap for k in range(n_kernels) if masks[k] >> tap & 1]
        contexts = [context(levels, k, tap, row) if len(level_tables) == 9 else 0 for k in here]
        for c, table in enumerate(level_tables):
            places = [k for k, own in zip(here, contexts, strict=True) if own == c]
            for k, level in zip(places, read_run(slab, table, len(places)), strict=True):
                levels[k] = level
    return levels[:n]


def context(levels, element, tap, row):
    left = levels[element - 1] if tap % row else 0
    above = levels[element - row] if tap >= row else 0
    return 3 * sign_class(left) + sign_class(above)


def sign_class(level):
    return 0 if level == 0 else 1 if level < 0 else 2
