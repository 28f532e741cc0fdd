"""`model.c` and `model.h`: the network's constants, and the calls that run it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from modelpress.export.firmware.arena import Arena, Planes
from modelpress.export.firmware.by_value import goes_by_value
from modelpress.export.firmware.c_text import (
    byte_array,
    commented_bytes,
    float_text,
    structure,
    structures,
    template,
)
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

_BEHIND = 16  # PRESS_NN_BEHIND


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
    _planes: dict[str, int] = field(default_factory=dict)
    _shared: dict[bytes, str] = field(default_factory=dict)
    _layers: list[dict[str, str]] = field(default_factory=list)
    _sums: list[dict[str, str]] = field(default_factory=list)
    _windows: list[Window] = field(default_factory=list)
    _data: list[tuple[str, bytes]] = field(default_factory=list)
    _layers_run: int = 0

    def source(self) -> str:
        """`model.c`."""
        self._enter()
        for operator in self.network.operators:
            self._call(operator)
        self._run_layers()
        if self.network.ending == "Softmax":
            self.calls.append("press_nn_softmax(values, MODEL_OUTPUT_SIZE);")
        pixels = self.network.pixel_tables
        return template("model.c.j2").render(
            constants=[*self.constants, *self._tables()],
            calls=self.calls,
            pixels=None if pixels is None else byte_array("pixel_codes", pixels.tobytes()),
            integers=self.integers,
        )

    def header(self) -> str:
        """`model.h`."""
        return template("model.h.j2").render(
            source=self.network.source,
            scale=float_text(float(self.network.source.scale)),
            arena=self.room.end,
            outputs=self.network.outputs,
            pixels=self.network.pixel_tables is not None,
            integers=self.integers,
        )

    # Constants

    def _add(self, text: str) -> None:
        self.constants.append(text)

    def _bytes(self, data: bytes, prefix: str) -> str:
        """An array of bytes, one for all that are equal."""
        if data not in self._shared:
            self._shared[data] = f"{prefix}_{len(self._shared)}"
            self._add(byte_array(self._shared[data], data))
        return self._shared[data]

    def _number_of(self, name: str) -> int:
        """Of an activation's planes."""
        return self._planes.setdefault(name, len(self._planes))

    def _planes_of(self, name: str) -> str:
        return f"&planes[{self._number_of(name)}]"

    def _tables(self) -> list[str]:
        """What calls speak of by number, and the weights."""
        planes = [_plane_fields(self.arena.planes[name]) for name in self._planes]
        tables = [structures("press_nn_planes", "planes", planes)]
        sums, layers = "NULL", "NULL"
        if self._sums:
            tables.append(structures("press_nn_sum", "sums", self._sums))
            sums = "sums"
        if self._layers:
            tables.append(commented_bytes("data", [*self._data, ("read, but of no use", bytes(_BEHIND))]))
            texts = ",\n".join(f"    {_window_text(window)}" for window in self._windows)
            tables.append(f"static const press_nn_window windows[{len(self._windows)}] = {{\n{texts},\n}};")
            tables.append(structures("press_nn_weights", "weights", self._layers))
            layers = "weights"
        room = {f"room.{name}": value for name, value in self.room.fields().items()}
        fields = {"weights": layers, "planes": "planes", "sums": sums, "windows": "windows", **room}
        return [*tables, structure("press_nn_layers", "layers", fields)] if self._layers else tables

    def _scale(self, factor: float) -> str:
        """A float32; where there are no floats, its bits."""
        value = np.float32(factor)
        return f"0x{int(value.view(np.uint32)):08X}u" if self.integers else float_text(float(value))

    def _sum(self, added: Add) -> int:
        a, b = (self.network.activations[name] for name in added.sources)
        found = sum_terms(a, b, self.network.activations[added.output])
        terms = {"first": found.first, "second": found.second, "constant": found.constant}
        self._sums.append(
            {
                **{name: self._scale(term) for name, term in terms.items()},
                "shift": str(found.shift),
                "low": str(added.low),
                "high": str(added.high),
            }
        )
        return len(self._sums) - 1

    def _layer(
        self,
        operator: Conv | ConvValues,
        scales: Sequence[float],
        bounds: dict[str, int],
        most: float,
        places: dict[str, int],
    ) -> None:
        """The next of the layers with weights; `places`: numbers of its planes, and of its sum."""
        weights, coded = operator.weights, self.coded[operator.output]
        read = self.network.activations[operator.sources[0]]
        bias = bias_of(weights, read)
        check_reach(operator.name, weights, bias, scales, most)

        channels = pack_channels(bias, scales, weights.parts)
        self.channel_bytes[operator.output] = len(channels.data)
        values = b"" if coded.values is None else coded.values.tobytes()
        data = channels.data + values + coded.levels + coded.codes
        start = sum(len(part) for _, part in self._data)
        self._data.append((f"{_comment(operator.name)}: {weights.kind}, {coded.coding}", data))
        self._layers.append(
            {
                "data": f"data + {start}",
                "masks": self._bytes(coded.masks, "code_table") if coded.masks else "NULL",
                **channels.fields(),
                **_weight_fields(weights, coded),
                **{name: str(number) for name, number in places.items()},
                "facts": " | ".join(self._facts(operator)) or "0",
                "window": str(self._window(weights.window)),
                **{name: str(bound) for name, bound in bounds.items()},
            }
        )

    def _bounds(self, zero: int, made: Bounded | None = None) -> dict[str, int]:
        """Of codes, where they have other ones than bytes."""
        if self.network.has_whole_bytes:
            return {"zero": zero}
        return {"zero": zero, "low": made.low if made else 0, "high": made.high if made else 255}

    def _window(self, window: Window) -> int:
        """Its number."""
        if window not in self._windows:
            self._windows.append(window)
        return self._windows.index(window)

    def _facts(self, operator: Conv | ConvValues) -> list[str]:
        coded = self.coded[operator.output]
        added = operator.added if isinstance(operator, Conv) else None
        facts = {
            "PACKED": coded.coding != "huffman",
            "HAS_CONTEXTS": coded.contexts > 1,
            "HAS_VALUES": coded.values is not None,
            "OWN_VALUES": coded.values_differ,
            "FITS_WIDE": fits_wide(operator.weights),
            "ADDS_BY_VALUE": self._by_value(operator),
            "HAS_SUM": added is not None,
            "OTHER_FIRST": added is not None and added.sources[0] == operator.sources[1],
        }
        return [f"PRESS_NN_{name}" for name, holds in facts.items() if holds]

    def _by_value(self, operator: Conv | ConvValues) -> bool:
        read, made = (self.arena.planes.get(name) for name in (operator.sources[0], operator.output))
        if read is None or made is None:  # values are no planes
            return False
        return goes_by_value(operator.weights, self.coded[operator.output], read, made)

    # Calls

    def _enter(self) -> None:
        self.calls.append(f"press_nn_enter(arena, codes, {self._planes_of(self.network.source.name)});")

    def _call(self, operator: Operator) -> None:
        if not isinstance(operator, Conv):
            self._run_layers()
        write = getattr(self, f"_call_{type(operator).__name__}")
        write(operator)

    def _checked(self, call: str) -> None:
        self.calls.append(f"status = {call};\nif (status) {{\n    return status;\n}}")

    def _run_layers(self, values: str = "NULL") -> None:
        """Those that were not run yet."""
        if self._layers_run < len(self._layers):
            numbers = f"{self._layers_run}, {len(self._layers)}"
            self._checked(f"press_nn_run_layers(arena, &layers, {numbers}, {values})")
        self._layers_run = len(self._layers)

    def _call_Conv(self, operator: Conv) -> None:  # noqa: N802 - of the class
        own = operator.output if operator.added is None else _own_codes(operator)
        read, made = self.network.activations[operator.sources[0]], self.network.activations[own]
        scales = conv_scale(operator.weights, read, made).tolist()
        places = {"from": self._number_of(read.name), "to": self._number_of(operator.output)}
        if operator.added is not None:
            places |= {"other": self._number_of(operator.sources[1]), "sum": self._sum(operator.added)}
        self._layer(operator, scales, self._bounds(made.zero, operator), MOST_STEPS, places)

    def _call_ConvValues(self, operator: ConvValues) -> None:  # noqa: N802
        read = self.network.activations[operator.sources[0]]
        scales = value_scale(operator.weights, read).tolist()
        most = MOST_VALUE if self.integers else np.inf
        self._layer(operator, scales, self._bounds(0), most, {"from": self._number_of(read.name)})
        self._run_layers("values")

    def _call_Add(self, operator: Add) -> None:  # noqa: N802
        a, b = map(self._planes_of, operator.sources)
        self.calls.append(
            f"press_nn_add(arena, {a}, {b}, &sums[{self._sum(operator)}], {self._planes_of(operator.output)});"
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
        scales = {
            "input_scale": self._scale(float(read.scale)),
            "output_scale": self._scale(float(made.scale)),
        }
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
    numbers = {
        "size": len(coded.levels) + len(coded.codes),
        "masks_size": len(coded.masks),
        "outputs": weights.outputs,
        "inputs": weights.inputs,
        "n_values": coded.n_values,
        "bits": coded.bits,
        "group": coded.group,
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
