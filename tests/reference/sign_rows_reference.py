"""Encoding 17: signs of rows, then magnitudes in groups."""

from tests.reference import streams
from tests.reference.quantized_reference import read_group
from tests.reference.streams import read_run, read_slabs, require


def sign_rows(stream, grid, n_elements, shared):
    taps, width, largest, small, grouped = (stream.integer(1) for _ in range(5))
    require(1 <= width <= 3 and width <= taps <= 81 and taps % width == 0, "taps or row width out of range")
    require(largest and small and 1 <= grouped <= 8, "magnitudes out of range")
    require(largest**grouped <= 1024, "too many symbols")
    middle = (3**width - 1) // 2
    sign_tables = read_group(stream, shared, middle + 2)
    magnitude_tables = read_group(stream, shared, 7)
    check_symbols(sign_tables, 3**width)
    check_symbols(magnitude_tables, largest**grouped)
    levels = []
    for slab, n in read_slabs(stream, n_elements, taps * (streams.KERNEL_SLAB_ELEMENTS // taps)):
        kernels = [[0] * taps for _ in range(-(-n // taps))]
        for row in range(taps // width):
            read_row(slab, kernels, (width, row), sign_tables)
        require(not any(flat(kernels)[n:]), "a sign past the end")
        for tap in range(taps):
            read_tap(slab, kernels, (tap, width, largest, small, grouped), magnitude_tables)
        slab.finish()
        levels += flat(kernels)[:n]
    return levels


def flat(kernels):
    return [level for kernel in kernels for level in kernel]


def check_symbols(tables, n):
    require(all(0 <= s < n for table in tables for s in table.symbols.values()), "symbol out of range")


def row_symbol(kernel, width, row):
    symbol = 0
    for value in kernel[row * width : (row + 1) * width]:
        symbol = 3 * symbol + (value > 0) - (value < 0) + 1
    return symbol


def read_row(slab, kernels, place, tables):
    width, row = place
    middle = (3**width - 1) // 2
    above = [row_symbol(kernel, width, row - 1) - middle if row else middle + 1 for kernel in kernels]
    for context, table in enumerate(tables):
        here = [k for k, d in enumerate(above) if abs(d) == context]
        for k, symbol in zip(here, read_run(slab, table, len(here)), strict=True):
            signs = 3**width - 1 - symbol if above[k] < 0 else symbol
            for x in range(width):
                kernels[k][row * width + x] = signs // 3 ** (width - 1 - x) % 3 - 1


def read_tap(slab, kernels, parameters, tables):
    tap, width, largest, small, grouped = parameters
    contexts = {k: context(kernel, tap, width, small) for k, kernel in enumerate(kernels) if kernel[tap]}
    for c, table in enumerate(tables):
        here = [k for k, own in contexts.items() if own == c]
        magnitudes = []
        for symbol in read_run(slab, table, -(-len(here) // grouped)):
            magnitudes += [symbol // largest**k % largest + 1 for k in range(grouped)]
        require(all(m == 1 for m in magnitudes[len(here) :]), "a magnitude past the last")
        for k, magnitude in zip(here, magnitudes, strict=False):
            kernels[k][tap] *= magnitude


def context(kernel, tap, width, small):
    left = kernel[tap - 1] if tap % width else 0
    above = kernel[tap - width] if tap >= width else 0
    return 2 + likeness(left * kernel[tap], small) + likeness(above * kernel[tap], small)


def likeness(value, small):  # the level itself is a sign still
    return -1 if value < 0 else 0 if value == 0 else 1 if value <= small else 2
