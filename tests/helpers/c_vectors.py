"""Vectors for `tests/c/check_vectors.c`: files with what they hold, and levels with the bytes that they become."""

import math
import struct
from dataclasses import replace

from tests.helpers.c_reader import expected
from tests.helpers.paths import GOLDEN
from tests.helpers.samples import encoded, in_every_encoding, quantized, samples, shared_samples
from tests.reference import quantized_reference
from tests.reference.grid import read_grid
from tests.reference.linked_reference import decode_linked
from tests.reference.mixed_reference import MixedModel, decode_mixed
from tests.reference.press_reference import decode
from tests.reference.press_writer import Parts, assemble
from tests.reference.sign_rows_reference import sign_rows
from tests.reference.streams import Stream, read_code_table

PACKED, HUFFMAN, GAPS, BITMAP, KERNELS, MIXED = range(5, 11)
SIGN_ROWS, LINKED = 17, 20
IN_ORDER = {MIXED, 15, LINKED, 21}
KINDS = {PACKED: b"p", HUFFMAN: b"r", GAPS: b"g", BITMAP: b"b", KERNELS: b"k", MIXED: b"m", LINKED: b"m"}
KINDS[SIGN_ROWS] = b"s"


def vectors():
    """All, as `check_vectors` reads them: some samples, since the reference takes its time, in every encoding."""
    names = {*[*samples()][::5], "halves", "bfloats", "wide doubles", "bool"}
    lines = [line for name in samples() if name in names for line in encoded(name)]
    lines = [line for line in lines if line.encoding != GAPS or line.blob[-1] % 3 == 0]  # eight ways for each
    files = [
        (GOLDEN / f"{name}.press").read_bytes()
        for name in ("v1.0-small", "v1.1-max", "v1.2-max", "v1.2-types", "v1.4-alike")
    ]
    files += [assemble(parts) for parts in [*shared_samples().values()][::3]]
    files += [assemble(Parts(several)) for several in in_tens(lines)]
    long = in_every_encoding(quantized((4, 5000), bits=2, density=2))
    long = [line for line in long if line.encoding == HUFFMAN]

    files += [assemble(Parts((line,))) for line in long]
    slabs = map(slab_vector, (*lines, *long))
    return b"".join([*map(file_vector, files), *map(refused_vector, files[:4]), *slabs])


def in_tens(lines):
    """A file for every ten tensors; one of mixed contexts, whose blob is the first of its file, in each at most."""
    mixed = [line for line in lines if line.encoding in IN_ORDER]
    others = [line for line in lines if line.encoding not in IN_ORDER]
    for k, start in enumerate(range(0, len(others), 10)):
        some = (*mixed[k : k + 1], *others[start : start + 10])
        yield tuple(replace(line, name=f"w{j}") for j, line in enumerate(some))


def vector(kind, *fields):
    return kind + bytes([len(fields)]) + b"".join(struct.pack("<I", len(field)) + field for field in fields)


def file_vector(data):
    return vector(b"f", data, expected(decode(data)))


def refused_vector(data):
    """A bit changed in the middle: the checksum tells."""
    k = len(data) // 2
    return vector(b"f", data[:k] + bytes([data[k] ^ 16]) + data[k + 1 :], b"")


def slab_vector(line):
    """The slab of a tensor that has one; nothing for others."""
    n = math.prod(line.shape)
    if line.encoding not in KINDS or n == 0:
        return b""
    stream = Stream(line.blob)
    grid = read_grid(stream, line.shape, line.element_type)
    start = stream.position
    levels = read_levels(line.encoding, stream, grid, n)
    stream.position = start
    numbers, tables = read_front(line, stream, grid)
    packed = struct.pack(f"<{n}h", *levels)
    return vector(KINDS[line.encoding], packed, numbers, stream.rest(), *map(table_field, tables))


def read_levels(encoding, stream, grid, n):
    if encoding == MIXED:
        return decode_mixed(stream, grid, MixedModel())
    if encoding == LINKED:
        return decode_linked(stream, grid, MixedModel())
    readers = {
        PACKED: quantized_reference.packed,
        HUFFMAN: quantized_reference.huffman,
        GAPS: quantized_reference.csr_huffman,
        BITMAP: quantized_reference.bitmap_huffman,
        KERNELS: quantized_reference.kernel_masks,
        SIGN_ROWS: sign_rows,
    }
    return readers[encoding](stream, grid, n, [])


def read_front(line, stream, grid):
    """Numbers that the encoder is told, and the code tables; the stream then stands before the slab."""
    if line.encoding == PACKED:
        levels = [level for channel in grid.codes_of_levels() for level in channel]
        return struct.pack("<Bh", (max(levels) - min(levels)).bit_length(), min(levels)), []
    if line.encoding in {MIXED, LINKED}:
        rows = line.shape if len(line.shape) > 1 else (1, *line.shape)
        kernel_width = rows[-1] if len(rows) > 2 else 1
        levels = [level for channel in grid.codes_of_levels() for level in channel]
        bounds = (-min(levels), max(levels)) if line.encoding == LINKED else (255, 255)
        shape = (rows[0], rows[1], math.prod(rows[2:]), kernel_width)
        return bytes([*shape, *bounds, line.encoding == LINKED]), []
    numbers = stream.take({GAPS: 1, KERNELS: 3, SIGN_ROWS: 5}.get(line.encoding, 0))
    groups = (1,)
    if line.encoding == GAPS:
        groups = (1, 1)
    elif line.encoding == KERNELS:
        groups = (1, numbers[-1])
    elif line.encoding == SIGN_ROWS:
        groups = (3 ** numbers[1] // 2 + 2, 7)
    tables = []
    for n_tables in groups:
        assert stream.integer(1) == 0  # tables of its own
        tables += [read_code_table(stream) for _ in range(n_tables)]
    return numbers, tables


def table_field(table):
    """Lowest symbol, then a codeword length for each from there on."""
    lengths = {symbol: length for (length, _), symbol in table.symbols.items()}
    symbols = range(min(lengths, default=0), max(lengths, default=-1) + 1)
    return struct.pack("<i", symbols.start) + bytes(lengths.get(symbol, 0) for symbol in symbols)
