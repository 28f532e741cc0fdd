"""The grid of a quantized tensor: its parameters, the values of its codes, the levels that stand for its codes."""

import math
import struct
from dataclasses import dataclass

from tests.reference.streams import require

FLOAT32, FLOAT16 = 1, 10
LARGEST = {FLOAT32: 2.0**127, FLOAT16: 65504.0}
OFFSET, SUPPORT, PER_CHANNEL, CHANNEL_SCALE = 1, 2, 4, 8
SCALE_F16, OFFSET_F16, CHANNEL_SCALE_F16, SIGNED_CENTRE = 16, 32, 64, 128


def rounded(value, format="<f"):
    """A binary64 rounded to binary32 (or "<e": to binary16)."""
    try:
        return struct.unpack(format, struct.pack(format, value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


@dataclass
class Grid:
    """Scale and offset have one value, or with ``per_channel`` one for each index of the channel axis."""

    element_type: int
    shape: tuple
    bits: int
    axis: int
    per_channel: bool
    has_support: bool
    scale: list
    offset: list | None
    channel_scale: list | None
    signed_centre: bool = False

    @property
    def channels(self):
        return self.shape[self.axis]

    @property
    def codes(self):
        """All codes, lowest first."""
        if self.offset is None:
            largest = 2 ** (self.bits - 1) - 1
            return range(-largest, largest + 1)
        return range(2**self.bits)

    def channel_of(self, element):
        return element // math.prod(self.shape[self.axis + 1 :]) % self.channels

    def value(self, code, channel):
        """(code × scale + offset) × channel_scale of a code that is no exact zero."""
        own = channel if self.per_channel else 0
        value = rounded(code * self.scale[own])
        if self.offset is not None:
            value = rounded(value + self.offset[own])
        if self.channel_scale is not None:
            value = rounded(value * self.channel_scale[channel])
        return rounded(value, "<e") if self.element_type == FLOAT16 else value

    def level_of_code(self, code, own):
        """Level of a code that is inside the support; ``own``: which scale and offset it has."""
        if self.offset is None:
            return code
        ratio = rounded(-self.offset[own] / self.scale[own])
        whole = math.ceil if self.signed_centre else round  # ties to even
        centre = whole(min(max(ratio, 0.0), float(self.codes[-1])))
        level = code - centre
        return level + 1 if self.has_support and level >= 0 else level

    def codes_of_levels(self):
        """For each scale: the code that each level stands for; None stands for outside the support."""
        return [
            ({0: None} if self.has_support else {})
            | {self.level_of_code(code, own): code for code in self.codes}
            for own in range(len(self.scale))
        ]


def read_floats(stream, n, half):
    width, letter = (2, "e") if half else (4, "f")
    values = list(struct.unpack(f"<{n}{letter}", stream.take(n * width)))
    require(all(map(math.isfinite, values)), "a parameter of the grid is not finite")
    return values


def read_grid(stream, shape, element_type):
    require(element_type in {FLOAT32, FLOAT16}, "only float32 and float16 are quantized")
    require(shape, "a quantized tensor has at least one dimension")
    axis, bits = divmod(stream.integer(1), 16)
    require(axis < len(shape), "the channel axis is no dimension")
    flags = stream.integer(1)
    return read_parameters(stream, (shape, element_type), bits, axis, flags)


def read_grid_of_1_0(stream, shape, element_type):
    require(element_type == FLOAT32, "version 1.0 quantizes float32 only")
    require(shape, "a quantized tensor has at least one dimension")
    bits, flags = stream.integer(1), stream.integer(1)
    require(flags < 16, "a flag that version 1.0 lacks")
    return read_parameters(stream, (shape, element_type), bits, 0, flags)


def read_parameters(stream, tensor, bits, axis, flags):
    shape, element_type = tensor
    require(2 <= bits <= 8, "bits are outside 2..8")
    require(flags & OFFSET or not flags & (SUPPORT | OFFSET_F16), "flags 2 and 32 require 1")
    require(flags & SUPPORT or not flags & SIGNED_CENTRE, "flag 128 requires 2")
    require(flags & CHANNEL_SCALE or not flags & CHANNEL_SCALE_F16, "flag 64 requires 8")
    channels = shape[axis]
    n = channels if flags & PER_CHANNEL else 1
    scale = read_floats(stream, n, flags & SCALE_F16)
    require(all(x > 0 for x in scale), "a scale is not positive")
    offset = read_floats(stream, n, flags & OFFSET_F16) if flags & OFFSET else None
    factor = read_floats(stream, channels, flags & CHANNEL_SCALE_F16) if flags & CHANNEL_SCALE else None
    per_channel, has_support = bool(flags & PER_CHANNEL), bool(flags & SUPPORT)
    signed = bool(flags & SIGNED_CENTRE)
    grid = Grid(element_type, shape, bits, axis, per_channel, has_support, scale, offset, factor, signed)
    check_largest_value(grid)
    return grid


def check_largest_value(grid):
    """Bounds of all magnitudes, before and after the channel scale."""
    before = [grid.codes[-1] * scale for scale in grid.scale]
    if grid.offset is not None:
        before = [bound + abs(offset) for bound, offset in zip(before, grid.offset, strict=True)]
    require(all(bound < LARGEST[FLOAT32] for bound in before), "values are not finite")
    after = before
    if grid.channel_scale is not None:
        own = before if grid.per_channel else before * grid.channels
        after = [bound * abs(factor) for bound, factor in zip(own, grid.channel_scale, strict=True)]
    require(all(bound < LARGEST[grid.element_type] for bound in after), "values are not finite")
