"""Encodings 14, 15 and 21: split values. Returns the bytes of the elements."""

from dataclasses import dataclass

from tests.reference import quantized_reference
from tests.reference.linked_reference import decode_linked
from tests.reference.mixed_reference import decode_mixed
from tests.reference.plain_reference import BOOL, ITEM_SIZES
from tests.reference.sign_rows_reference import sign_rows
from tests.reference.streams import Stream, require

FLOATS = {1: (8, 23), 10: (5, 10), 11: (11, 52), 16: (8, 7)}  # element type: bits of exponent and mantissa
SIGNED, UNSIGNED = {3, 5, 6, 7, 22, 26}, {2, 4, 12, 13, 21, 25}
INNER = {
    5: quantized_reference.packed,
    6: quantized_reference.huffman,
    7: quantized_reference.csr_huffman,
    8: quantized_reference.bitmap_huffman,
    9: quantized_reference.kernel_masks,
    17: sign_rows,
}
LARGEST = 256


@dataclass
class Bounds:
    """Stands where a grid would: what the encodings of levels ask of it."""

    shape: tuple
    lowest: int
    highest: int

    def codes_of_levels(self):
        return [{self.lowest: 0, self.highest: 0}]


def split_values(stream, record, n_elements, shared, mixed):
    """Encoding 14, or 15 and 21 with the model of mixed contexts."""
    require(record.element_type != BOOL, "bools are not split")
    inner, kind = stream.integer(1), stream.integer(1)
    expected = {15: {10: decode_mixed}, 21: {20: decode_linked}}.get(record.encoding, INNER)
    require(inner in expected, "levels in another encoding")
    lowest, highest, element = FRONTS.get(kind, no_such_kind)(stream, record.element_type)
    require(max(-lowest, highest) <= LARGEST, "levels beyond 256")
    bounds = Bounds(record.shape, lowest, highest)
    rest = stream, bounds
    of_file = (mixed,) if inner in {10, 20} else (n_elements, shared)
    levels = expected[inner](*rest, *of_file)
    require(all(lowest <= level <= highest for level in levels), "a level out of range")
    data = b"".join(element(level).to_bytes(ITEM_SIZES[record.element_type], "little") for level in levels)
    if kind == 0:
        element.mantissas.finish()
    return data


def no_such_kind(stream, element_type):
    require(False, "unknown kind of split values")


class FloatElement:
    """Bits of a float."""

    def __init__(self, stream, element_type):
        self.exponent_bits, self.mantissa_bits = FLOATS[element_type]
        self.exponent, self.span, self.raw_bits = stream.integer(2), stream.integer(1), stream.integer(1)
        require(self.raw_bits <= self.mantissa_bits, "more bits than a mantissa has")
        require(self.exponent + self.span < 1 << self.exponent_bits, "an exponent beyond its type")
        self.mantissas = Stream(stream.take(stream.varint()))

    def __call__(self, level):
        if level == 0:
            return 0
        exponent = self.exponent + abs(level) - 1
        mantissa = self.mantissas.number(self.raw_bits) << self.mantissa_bits - self.raw_bits
        sign = int(level < 0)
        value = (sign << self.exponent_bits | exponent) << self.mantissa_bits | mantissa
        require(value, "a zero that is no level 0")
        return value


def floats(stream, element_type):
    require(element_type in FLOATS, "no float")
    element = FloatElement(stream, element_type)
    return -element.span - 1, element.span + 1, element


def integers(stream, element_type):
    require(element_type in SIGNED | UNSIGNED, "no integer")
    most, bits = stream.integer(2), 8 * ITEM_SIZES[element_type]
    signed = element_type in SIGNED

    def element(level):
        require(
            -(1 << bits - 1) <= level < 1 << bits - 1 if signed else 0 <= level < 1 << bits, "beyond its type"
        )
        return level % (1 << bits)

    return -most, most, element


def table(stream, element_type):
    n, centre = stream.integer(2), stream.integer(2)
    require(centre < n, "the centre is no entry")
    values = [stream.integer(ITEM_SIZES[element_type]) for _ in range(n)]
    return -centre, n - 1 - centre, lambda level: values[level + centre]


FRONTS = {0: floats, 1: integers, 2: table}
