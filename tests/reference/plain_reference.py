"""Encodings 0, 4, 11, 12 and 13: elements as they are, bytes apart, halves. Each returns the bytes of the elements."""

import lzma
import math
import struct
import zlib

from tests.reference import streams
from tests.reference.grid import FLOAT32
from tests.reference.streams import Refused, read_code_table, read_run, read_slabs, require

BOOL = 9
ITEM_SIZES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8}
ITEM_SIZES |= {16: 2} | dict.fromkeys(range(17, 27), 1)
RANGES = {9: (0, 1), 21: (0, 15), 22: (-8, 7), 23: (0, 15), 25: (0, 3), 26: (-2, 1)}
FLOAT_LETTERS = {1: "f", 10: "e", 11: "d"}


def inflated(data, size):
    """A zlib stream of exactly this size, followed by nothing."""
    inflate = zlib.decompressobj()
    try:
        result = inflate.decompress(data, size + 1)
    except zlib.error as error:
        raise Refused(f"zlib: {error}") from None
    require(inflate.eof and len(result) == size, "the zlib stream has another length than declared")
    require(not inflate.unused_data, "bytes follow the zlib stream")
    return result


def check_elements(data, element_type):
    letter = FLOAT_LETTERS.get(element_type)
    if letter:
        values = struct.unpack(f"<{len(data) // ITEM_SIZES[element_type]}{letter}", data)
        require(all(map(math.isfinite, values)), "an element is not finite")
    check_few_bits(data, element_type)
    return data


def check_few_bits(data, element_type):
    if element_type in RANGES:
        low, high = RANGES[element_type]
        require(set(data) <= {value % 256 for value in range(low, high + 1)}, "an element beyond its bits")


def unpacked_lzma(data, size, properties):
    """An LZMA stream of exactly this size, followed by nothing."""
    literal, position, positions = properties % 9, properties // 9 % 5, properties // 45
    require(positions <= 4 and literal + position <= 4, "properties that are not defined")
    kind = {"id": lzma.FILTER_LZMA1, "lc": literal, "lp": position, "pb": positions}
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[{**kind, "dict_size": max(size, 4096)}])
    try:
        result = decoder.decompress(data, size + 1)
    except lzma.LZMAError as error:
        raise Refused(f"lzma: {error}") from None
    require(decoder.eof and len(result) == size, "the LZMA stream has another length than declared")
    require(not decoder.unused_data, "bytes follow the LZMA stream")
    return result


def lzma_elements(stream, element_type, n_elements):
    """Encoding 18."""
    properties = stream.integer(1)
    return unpacked_lzma(stream.rest(), n_elements * ITEM_SIZES[element_type], properties)


def raw(stream, element_type, n_elements):
    """Encoding 0."""
    return stream.take(n_elements * ITEM_SIZES[element_type])


def byte_planes(stream, element_type, n_elements):
    """Encoding 4."""
    require(element_type != BOOL, "byte planes hold no bool")
    size = ITEM_SIZES[element_type]
    planes = inflated(stream.rest(), n_elements * size)
    return interleaved([planes[j * n_elements : (j + 1) * n_elements] for j in range(size)], n_elements)


def interleaved(planes, n_elements):
    return bytes(plane[k] for k in range(n_elements) for plane in planes)


def float16(stream, element_type, n_elements):
    """Encoding 11."""
    require(element_type == FLOAT32, "float16 holds float32 tensors")
    values = struct.unpack(f"<{n_elements}e", stream.take(2 * n_elements))
    require(all(map(math.isfinite, values)), "an element is not finite")
    return struct.pack(f"<{n_elements}f", *values)


def bfloat16(stream, element_type, n_elements):
    """Encoding 12."""
    require(element_type == FLOAT32, "bfloat16 holds float32 tensors")
    return b"".join(b"\0\0" + stream.take(2) for _ in range(n_elements))


def coded_planes(stream, element_type, n_elements):
    """Encoding 13."""
    tables = []
    for _ in range(ITEM_SIZES[element_type]):
        kind = stream.integer(1)
        require(kind in {0, 1}, "unknown kind of a plane")
        tables.append(read_code_table(stream) if kind else None)
    for table in filter(None, tables):
        require(all(0 <= symbol <= 255 for symbol in table.symbols.values()), "symbol is no byte")
    elements = b""
    for slab, n in read_slabs(stream, n_elements, streams.SLAB_ELEMENTS):
        planes = [read_run(slab, table, n) if table else slab.take(n) for table in tables]
        slab.finish()
        elements += interleaved(planes, n)
    return elements
