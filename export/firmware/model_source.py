"""`model.c` and `model.h`: the network's constants, and the calls that run it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from modelpress.export.firmware.arena import Arena, Planes
from modelpress.export.firmware.by_value import goes_by_value
from modelpress.export.firmware.c_text import array, byte_array, float_text, structure
from modelpress.export.firmware.coded_weights import CodedLayer
from modelpress.export.firmware.network import (
    Activation,
    Add,
    AveragePool,
    Bounded,
    Conv,
    ConvValues,
    Copy,
    GlobalAverage,
    MaxPool,
    Multiply,
    Network,
    Operator,
    Values,
    Weights,
    Window,
)
from modelpress.export.firmware.room import Room
from modelpress.export.firmware.scales import (
    MOST_STEPS,
    MOST_VALUE,
    bias_of,
    check_reach,
    conv_scale,
    fits_wide,
    global_average_scale,
    pack_channels,
    product_scale,
    sum_terms,
    value_scale,
)


@dataclass
class SourceWriter:
    """Writes the calls of all operators, and the constants they need before them.

    Attributes:
        network: What is written.
        arena: Where its activations lie.
        coded: The weights of each layer, by the name of what it makes.
        room: Of the decoder.
        integers: Integers only.
    """

    network: Network
    arena: Arena
    coded: dict[str, CodedLayer]
    room: Room
    integers: bool
    constants: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    channel_bytes: dict[str, int] = field(default_factory=dict)
    _planes: dict[str, str] = field(default_factory=dict)
    _shared: dict[bytes, str] = field(default_factory=dict)

    def source(self) -> str:
        """`model.c`."""
        self._enter()
        for operator in self.network.operators:
            self._call(operator)
        if self.network.ending == "Softmax":
            self.calls.append("press_nn_softmax(values, MODEL_OUTPUT_SIZE);")
        body = "\n".join(f"    {line}" for call in self.calls for line in call.split("\n"))
        parts = [_SOURCE.rstrip(), *self.constants, self._entering(), _RUN.replace("@BODY@", body)]
        return "\n\n".join(parts) + "\n"

    def header(self) -> str:
        """`model.h`."""
        source = self.network.source
        text = _HEADER
        facts = {
            "INTEGERS": int(self.integers),
            "ARENA": self.room.end,
            "CHANNELS": source.channels,
            "HEIGHT": source.height,
            "WIDTH": source.width,
            "SCALE": float_text(float(source.scale)),
            "ZERO": source.zero,
            "OUTPUTS": self.network.outputs,
        }
        for name, value in facts.items():
            text = text.replace(f"@{name}@", str(value))
        text = text.replace("@PIXELS@", "" if self.network.pixel_tables is None else _PIXELS)
        text = text.replace("@QUANTIZE@", "" if self.integers else _QUANTIZE)
        return text.replace("@VALUES@", _INTEGER_VALUES if self.integers else _FLOAT_VALUES)

    # Constants

    def _add(self, text: str) -> None:
        self.constants.append(text)

    def _bytes(self, data: bytes, prefix: str) -> str:
        """An array of bytes, one for all that are equal."""
        if data not in self._shared:
            self._shared[data] = f"{prefix}_{len(self._shared)}"
            self._add(byte_array(self._shared[data], data))
        return self._shared[data]

    def _planes_of(self, name: str) -> str:
        if name not in self._planes:
            planes, number = self.arena.planes[name], len(self._planes)
            self._planes[name] = f"planes_{number}"
            self._add(structure("press_nn_planes", f"planes_{number}", _plane_fields(planes)))
        return f"&{self._planes[name]}"

    def _scale(self, factor: float) -> str:
        """A float32; where there are no floats, its bits."""
        value = np.float32(factor)
        return f"0x{int(value.view(np.uint32)):08X}u" if self.integers else float_text(float(value))

    def _sum(self, added: Add) -> str:
        a, b = (self.network.activations[name] for name in added.sources)
        found = sum_terms(a, b, self.network.activations[added.output])
        terms = {"first": found.first, "second": found.second, "constant": found.constant}
        fields = {
            **{name: self._scale(term) for name, term in terms.items()},
            "shift": str(found.shift),
            "low": str(added.low),
            "high": str(added.high),
        }
        name = f"sum_{len(self.calls)}"
        self._add(structure("press_nn_sum", name, fields))
        return f"&{name}"

    def _weights(
        self, operator: Conv | ConvValues, scales: Sequence[float], bounds: tuple[int, int, int], most: float
    ) -> str:
        number = len(self.calls)
        weights, coded = operator.weights, self.coded[operator.output]
        read = self.network.activations[operator.sources[0]]
        bias = bias_of(weights, read)
        check_reach(operator.name, weights, bias, scales, most)
        self._add(f"/* {_comment(operator.name)}: {weights.kind}, {coded.coding} */")
        self._add(byte_array(f"codes_{number}", coded.codes))
        if coded.values is not None:
            self._add(array("int8_t", f"values_{number}", map(str, coded.values.reshape(-1).tolist())))
        channels = pack_channels(bias, scales)
        self._add(byte_array(f"channels_{number}", channels.data))
        self.channel_bytes[operator.output] = len(channels.data)
        fields = {
            "codes": f"codes_{number}",
            "masks": self._bytes(coded.masks, "code_table") if coded.masks else "NULL",
            "levels": self._bytes(coded.levels, "code_table") if coded.levels else "NULL",
            "values": "NULL" if coded.values is None else f"values_{number}",
            "channels": f"channels_{number}",
            **channels.fields(),
            **_weight_fields(weights, coded),
            "by_value": str(int(self._by_value(operator))),
            **dict(zip(("zero", "low", "high"), map(str, bounds), strict=True)),
        }
        self._add(structure("press_nn_weights", f"weights_{number}", fields))
        return f"&weights_{number}"

    def _by_value(self, operator: Conv | ConvValues) -> bool:
        read, made = (self.arena.planes.get(name) for name in (operator.sources[0], operator.output))
        if read is None or made is None:  # values are no planes
            return False
        return goes_by_value(operator.weights, self.coded[operator.output], read, made)

    # Calls

    def _enter(self) -> None:
        self._add(structure("press_nn_room", "room", self.room.fields()))
        self.calls.append(f"press_nn_enter(arena, codes, {self._planes_of(self.network.source.name)});")

    def _entering(self) -> str:
        """How pixels and values become codes."""
        source, parts = self.network.source, []
        if self.network.pixel_tables is not None:
            parts.append(byte_array("pixel_codes", self.network.pixel_tables.tobytes()))
            parts.append(_PIXELS_BODY)
        if not self.integers:
            parts.append(_QUANTIZE_BODY)
        return "\n\n".join(parts) or f"/* {source.size} codes enter. */"

    def _call(self, operator: Operator) -> None:
        write = getattr(self, f"_call_{type(operator).__name__}")
        write(operator)

    def _checked(self, call: str) -> None:
        self.calls.append(f"status = {call};\nif (status) {{\n    return status;\n}}")

    def _call_Conv(self, operator: Conv) -> None:  # noqa: N802 - of the class
        own = operator.output if operator.added is None else _own_codes(operator)
        read, made = self.network.activations[operator.sources[0]], self.network.activations[own]
        scales = conv_scale(operator.weights, read, made).tolist()
        weights = self._weights(operator, scales, (made.zero, operator.low, operator.high), MOST_STEPS)
        planes = self._planes_of(operator.sources[0]), self._planes_of(operator.output)
        if operator.added is None:
            self._checked(f"press_nn_conv(arena, &room, {weights}, {planes[0]}, {planes[1]})")
            return
        other = operator.sources[1]
        other_first = int(operator.added.sources[0] == other)
        self._checked(
            f"press_nn_conv_add(arena, &room, {weights}, {planes[0]}, {self._planes_of(other)}, "
            f"{self._sum(operator.added)}, {other_first}, {planes[1]})"
        )

    def _call_ConvValues(self, operator: ConvValues) -> None:  # noqa: N802
        read = self.network.activations[operator.sources[0]]
        scales = value_scale(operator.weights, read).tolist()
        most = MOST_VALUE if self.integers else np.inf
        weights = self._weights(operator, scales, (0, 0, 255), most)
        self._checked(
            f"press_nn_conv_values(arena, &room, {weights}, {self._planes_of(operator.sources[0])}, values)"
        )

    def _call_Add(self, operator: Add) -> None:  # noqa: N802
        a, b = map(self._planes_of, operator.sources)
        self.calls.append(
            f"press_nn_add(arena, {a}, {b}, {self._sum(operator)}, {self._planes_of(operator.output)});"
        )

    def _call_Multiply(self, operator: Multiply) -> None:  # noqa: N802
        read, made = self._read(operator), self.network.activations[operator.output]
        factor = self._scale(float(product_scale(read[0], read[1], made)))
        a, b = map(self._planes_of, operator.sources)
        self._bounded("multiply", f"{a}, {b}, {factor}", operator)

    def _call_GlobalAverage(self, operator: GlobalAverage) -> None:  # noqa: N802
        read, made = self._read(operator)[0], self.network.activations[operator.output]
        factor = self._scale(float(global_average_scale(read, made)))
        self._bounded("global_average", f"{self._planes_of(read.name)}, {factor}", operator)

    def _bounded(self, kernel: str, arguments: str, operator: Bounded) -> None:
        made = self._planes_of(operator.output)
        self.calls.append(f"press_nn_{kernel}(arena, {arguments}, {operator.low}, {operator.high}, {made});")

    def _call_AveragePool(self, operator: AveragePool) -> None:  # noqa: N802
        read, made = self._read(operator)[0], self.network.activations[operator.output]
        scales = {"input_scale": self._scale(float(read.scale)), "output_scale": self._scale(float(made.scale))}
        if self.integers:
            scales["scale"] = self._scale(float(read.scale) / float(made.scale))
        fields = {
            "window": _window_text(operator.window),
            "with_pads": str(int(operator.with_pads)),
            "low": str(operator.low),
            "high": str(operator.high),
            **scales,
        }
        name = f"average_{len(self.calls)}"
        self._add(structure("press_nn_average", name, fields))
        planes = f"{self._planes_of(read.name)}, &{name}, {self._planes_of(made.name)}"
        self.calls.append(f"press_nn_average_pool(arena, {planes});")

    def _call_MaxPool(self, operator: MaxPool) -> None:  # noqa: N802
        name = f"window_{len(self.calls)}"
        self._add(f"static const press_nn_window {name} = {_window_text(operator.window)};")
        planes = f"{self._planes_of(operator.sources[0])}, &{name}, {self._planes_of(operator.output)}"
        self.calls.append(f"press_nn_max_pool(arena, {planes});")

    def _call_Copy(self, operator: Copy) -> None:  # noqa: N802
        made = self._planes_of(operator.output)
        if operator.is_partial:
            self.calls.append(f"press_nn_fill(arena, {made});")
        for source, place in zip(operator.sources, operator.places, strict=True):
            table = "NULL" if place.table is None else self._bytes(place.table, "table")
            where = f"{place.channel}, {place.row}, {place.column}"
            self.calls.append(f"press_nn_table(arena, {self._planes_of(source)}, {table}, {made}, {where});")

    def _call_Values(self, operator: Values) -> None:  # noqa: N802
        read = self._read(operator)[0]
        factor = self._scale(float(read.scale))
        self.calls.append(f"press_nn_values(arena, {self._planes_of(read.name)}, {factor}, values);")

    def _read(self, operator: Operator) -> list[Activation]:
        return [self.network.activations[name] for name in operator.sources]


def _own_codes(operator: Conv) -> str:
    assert operator.added is not None
    return next(name for name in operator.added.sources if name != operator.sources[1])


def _plane_fields(planes: Planes) -> dict[str, str]:
    activation = planes.activation
    return {
        "place": str(planes.start + planes.front),
        "channels": str(activation.channels),
        "height": str(activation.height),
        "width": str(activation.width),
        "pad_rows": str(planes.pad_rows),
        "pad_columns": str(planes.pad_columns),
        "zero": str(activation.zero),
    }


def _weight_fields(weights: Weights, coded: CodedLayer) -> dict[str, str]:
    window = weights.window
    numbers = {
        "codes_size": len(coded.codes),
        "masks_size": len(coded.masks),
        "levels_size": len(coded.levels),
        "outputs": weights.outputs,
        "inputs": weights.inputs,
        "n_values": coded.n_values,
        "coding": "PRESS_NN_HUFFMAN" if coded.coding == "huffman" else "PRESS_NN_PACKED",
        "bits": coded.bits,
        "group": coded.group,
        "contexts": coded.contexts,
        "fits_wide": int(fits_wide(weights)),
        "values_differ": int(coded.values_differ),
        "kernel_height": window.height,
        "kernel_width": window.width,
        "stride_rows": window.stride_rows,
        "stride_columns": window.stride_columns,
        "dilation_rows": window.dilation_rows,
        "dilation_columns": window.dilation_columns,
        "pad_top": window.pad_top,
        "pad_left": window.pad_left,
        "group_outputs": weights.outputs // weights.groups,
    }
    return {name: str(value) for name, value in numbers.items()}


def _window_text(window: Window) -> str:
    numbers = (
        window.height,
        window.width,
        window.stride_rows,
        window.stride_columns,
        window.pad_top,
        window.pad_left,
        window.dilation_rows,
        window.dilation_columns,
    )
    return f"{{{', '.join(map(str, numbers))}}}"


def _comment(text: str) -> str:
    """A name from anywhere, in a comment: nothing that ends it or begins another."""
    return (
        "".join(c if (c.isalnum() and c.isascii()) or c in "._-/" else "?" for c in text)
        .replace("*/", "?")
        .replace("/*", "?")[:80]
    )


_SOURCE = """/* Written by modelpress: the network's constants, and the calls that run it. */
#include "model.h"
"""

_RUN = """press_nn_status model_run(void *memory, size_t memory_bytes, const uint8_t *codes, press_nn_value *values)
{
    uint8_t *const arena = (uint8_t *)memory;
    press_nn_status status = PRESS_NN_OK;

    if (memory == NULL || codes == NULL || values == NULL) {
        return PRESS_NN_NULL;
    }
    if (memory_bytes < MODEL_ARENA_BYTES) {
        return PRESS_NN_SMALL_ARENA;
    }
    if ((uintptr_t)memory % 4 != 0) {
        return PRESS_NN_UNALIGNED;
    }
@BODY@
    return status;
}"""

_PIXELS_BODY = """void model_codes_of_pixels(const uint8_t *pixels, uint8_t *codes)
{
    press_nn_enter_bytes(pixels, pixel_codes, MODEL_INPUT_CHANNELS, MODEL_INPUT_HEIGHT * MODEL_INPUT_WIDTH, codes);
}"""

_QUANTIZE_BODY = """void model_quantize(const float *values, uint8_t *codes)
{
    press_nn_quantize(values, MODEL_INPUT_SIZE, MODEL_INPUT_SCALE, MODEL_INPUT_ZERO, codes);
}"""

_PIXELS = """
/* Codes of 8-bit pixels, channel by channel, normalised as the network was trained; both may be the same memory. */
void model_codes_of_pixels(const uint8_t *pixels, uint8_t *codes);
"""

_QUANTIZE = """
/* Codes of values. */
void model_quantize(const float *values, uint8_t *codes);
"""

_FLOAT_VALUES = "floats"
_INTEGER_VALUES = "integers, in units of 2^-16"

_HEADER = """/* Written by modelpress: one network. See README.md. */
#ifndef MODEL_H
#define MODEL_H

#include "press_nn.h"

#if PRESS_NN_INTEGERS != @INTEGERS@
#error "model.c and press_nn.h were generated for different arithmetic"
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define MODEL_ARENA_BYTES ((size_t)@ARENA@)

/* What enters: channel by channel, row by row, bytes of value / scale + zero, rounded. */
#define MODEL_INPUT_CHANNELS ((size_t)@CHANNELS@)
#define MODEL_INPUT_HEIGHT ((size_t)@HEIGHT@)
#define MODEL_INPUT_WIDTH ((size_t)@WIDTH@)
#define MODEL_INPUT_SIZE (MODEL_INPUT_CHANNELS * MODEL_INPUT_HEIGHT * MODEL_INPUT_WIDTH)
#define MODEL_INPUT_SCALE @SCALE@
#define MODEL_INPUT_ZERO @ZERO@

#define MODEL_OUTPUT_SIZE ((size_t)@OUTPUTS@)
@PIXELS@@QUANTIZE@
/*
 * Run the network once: MODEL_INPUT_SIZE codes to MODEL_OUTPUT_SIZE values, which are @VALUES@. The arena is
 * MODEL_ARENA_BYTES, aligned to four; nothing in it outlives the call, and calls on different arenas do not meet.
 */
press_nn_status model_run(void *arena, size_t arena_bytes, const uint8_t *codes, press_nn_value *values);

#ifdef __cplusplus
}
#endif

#endif
"""
