"""Bytes, bits, code tables and runs of symbols, as FORMAT.md words them."""

from dataclasses import dataclass

LANE_SYMBOLS = 1 << 14
SLAB_ELEMENTS = 1 << 24
KERNEL_SLAB_ELEMENTS = 1 << 22


class Refused(Exception):  # noqa: N818 - reads as the fact it states
    """The file is not a `.press` file that this specification allows."""


def require(condition, reason):
    if not condition:
        raise Refused(reason)


class Stream:
    """Bytes read bit by bit, least significant bit first; byte fields start at the next whole byte."""

    def __init__(self, data):
        self.data = bytes(data)
        self.position = 0  # in bits

    def bit(self):
        byte, shift = divmod(self.position, 8)
        require(byte < len(self.data), "stream ends too early")
        self.position += 1
        return self.data[byte] >> shift & 1

    def number(self, width):
        return sum(self.bit() << k for k in range(width))

    def align(self):
        while self.position % 8:
            require(self.bit() == 0, "padding is not zero")

    def take(self, n_bytes):
        self.align()
        start = self.position // 8
        require(n_bytes <= len(self.data) - start, "fewer bytes are left than declared")
        self.position += 8 * n_bytes
        return self.data[start : start + n_bytes]

    def rest(self):
        self.align()
        return self.take(len(self.data) - self.position // 8)

    def finish(self):
        self.align()
        require(self.position == 8 * len(self.data), "bytes are left over")

    def integer(self, n_bytes):
        return int.from_bytes(self.take(n_bytes), "little")

    def varint(self):
        value = 0
        for k in range(9):  # 9 × 7 = 63 bits
            byte = self.integer(1)
            value |= (byte & 127) << 7 * k
            if byte < 128:
                require(byte or not k, "varint is not in the fewest bytes")
                return value
        raise Refused("varint of 2^63 or more")

    def zigzag(self):
        value = self.varint()
        return -(value + 1) // 2 if value % 2 else value // 2


@dataclass
class CodeTable:
    """A canonical Huffman code: which symbol each (length, codeword) stands for."""

    symbols: dict

    def decode(self, stream):
        length = codeword = 0
        while (length, codeword) not in self.symbols:
            require(length < 15, "bits are no codeword")
            codeword = codeword << 1 | stream.bit()
            length += 1
        return self.symbols[length, codeword]


def canonical_code(first, lengths):
    """Codewords by length, then by symbol (RFC 1951, 3.2.2)."""
    ordered = sorted((length, first + k) for k, length in enumerate(lengths) if length)
    kraft = sum(1 << 15 - length for length, _ in ordered)
    single = len(ordered) == 1 and ordered[0][0] == 1
    require(not ordered or single or kraft == 1 << 15, "codeword lengths break Kraft's equality")
    symbols, codeword, previous = {}, 0, 0
    for length, symbol in ordered:
        codeword <<= length - previous
        symbols[length, codeword] = symbol
        codeword, previous = codeword + 1, length
    return CodeTable(symbols)


def lengths_of_four_bits(stream, n):
    bits = Stream(stream.take((n + 1) // 2))
    lengths = [bits.number(4) for _ in range(n)]
    bits.finish()
    return lengths


def read_code_table(stream):
    first = stream.zigzag()
    require(-1024 <= first <= 1024, "first symbol is outside -1,024 .. 1,024")
    n = stream.varint()
    require(n <= 1024, "more than 1,024 symbols")
    require(n or first == 0, "the first symbol of a table without symbols is not 0")
    lengths = lengths_of_four_bits(stream, n)
    require(not n or (lengths[0] and lengths[-1]), "first or last symbol has no codeword")
    return canonical_code(first, lengths)


def read_run(stream, table, count):
    """Symbols of a run; its lanes if it has more than one."""
    if count == 0:
        return []
    require(table.symbols, "a run of symbols under a code without codewords")
    if len(table.symbols) == 1:
        return list(table.symbols.values()) * count
    if count <= LANE_SYMBOLS:
        return [table.decode(stream) for _ in range(count)]
    sizes = [min(LANE_SYMBOLS, count - start) for start in range(0, count, LANE_SYMBOLS)]
    lengths = [stream.integer(2) for _ in sizes]
    symbols = []
    for size, length in zip(sizes, lengths, strict=True):
        lane = Stream(stream.take(length))
        symbols += [table.decode(lane) for _ in range(size)]
        lane.finish()
    return symbols


def read_slabs(stream, n_elements, slab_elements):
    """Streams of the slabs, each with the number of its elements."""
    sizes = [min(slab_elements, n_elements - start) for start in range(0, n_elements, slab_elements)]
    if len(sizes) > 1:
        lengths = [stream.integer(4) for _ in sizes]
        slabs = [(Stream(stream.take(length)), n) for length, n in zip(lengths, sizes, strict=True)]
    else:
        slabs = [(Stream(stream.rest()), n) for n in sizes]
    stream.finish()
    return slabs
