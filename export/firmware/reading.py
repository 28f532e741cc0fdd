"""The network of a flavour int8: its quantized graph, read operator by operator.

Each QuantizeLinear ends one operator; what lies between it and the DequantizeLinear nodes before is matched. Whatever
has no form in firmware is collected, and named all at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.export.errors import ModelError
from modelpress.export.firmware.matching import (
    Attributes,
    bounds_of_clip,
    is_global_average,
    weight_window,
    window_of,
)
from modelpress.export.firmware.network import (
    Activation,
    Add,
    AveragePool,
    Conv,
    ConvValues,
    Copy,
    GlobalAverage,
    MaxPool,
    Multiply,
    Network,
    Operator,
    Place,
    Values,
    Weights,
    Window,
)
from modelpress.export.firmware.pixels import quantized
from modelpress.export.firmware.pointwise import island_of, table_of
from modelpress.export.firmware.shapes import Shape, single_shapes
from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.initializers import constants
from modelpress.export.graphs.operators import WEIGHTED, is_standard
from modelpress.export.onnx_flavours.int8 import Int8Plan
from modelpress.export.onnx_flavours.int8_storage import with_bytes
from modelpress.export.quantized import QuantizedTensor, dense_array

_LOW, _HIGH = 0, 255
_LEAST_AXES = 2  # of an activation: batch and channels
_ENDINGS = ("Softmax", "ArgMax")


@dataclass(frozen=True)
class _View:
    """Codes under another name: the same activation, perhaps as a vector."""

    activation: str
    is_flat: bool = False


class _NoForm(Exception):  # noqa: N818 - a finding, collected
    """An operator has no form in firmware."""


def read_network(plan: Int8Plan) -> Network:
    """The network that a plan of flavour int8 computes.

    Raises:
        ModelError: Operators without a form in firmware, all of them named; sizes that are not fixed; several inputs
            or outputs.
    """
    return _Reader(plan).read()


class _Reader:
    def __init__(self, plan: Int8Plan) -> None:
        self.plan, self.graph = plan, plan.graph.graph
        stored = with_bytes(plan, plan.weights)
        self.shapes: Mapping[str, Shape] = single_shapes(stored)
        self.constants = {n: np.asarray(dense_array(t)) for n, t in plan.tensors.items()}
        self.constants |= constants(plan.graph)
        self.index = GraphIndex.of_model(plan.graph)
        self.views: dict[str, _View] = {}
        self.activations: dict[str, Activation] = {}
        self.operators: list[Operator] = []
        self.problems: list[str] = []
        self.seen: set[int] = set()

    def read(self) -> Network:
        source = self._single_input()
        for place, node in enumerate(self.index.nodes):
            try:
                self._visit(place, node)
            except _NoForm as problem:
                self.problems.append(str(problem))

        outputs, ending = 0, ""
        if not self.problems:
            outputs, ending = self._ending()
        self._refuse_problems()
        return Network(self.activations[source], self.activations, self.operators, outputs, ending)

    def _refuse_problems(self) -> None:
        for place, node in enumerate(self.index.nodes):
            if place not in self.seen and not self.problems:
                self.problems.append(f"{node.op_type} ({_name(node)}), which computes in float")
        if self.problems:
            raise ModelError(
                f"firmware has no form for {'; '.join(dict.fromkeys(self.problems))}; change the network, or hand over "
                "an ONNX model"
            )

    def _single_input(self) -> str:
        entering = [value.name for value in self.graph.input]
        if len(entering) != 1 or len(self.graph.output) != 1:
            raise ModelError(
                f"the network has {len(entering)} inputs and {len(self.graph.output)} outputs; firmware takes one "
                "of each"
            )
        readers = self.index.users(entering[0])
        quantizing = [node for node in readers if node.op_type == "QuantizeLinear"]
        if len(quantizing) != len(readers) or not readers:
            others = (
                ", ".join(sorted({n.op_type for n in readers if n.op_type != "QuantizeLinear"})) or "nothing"
            )
            raise ModelError(
                f"input {entering[0]} is read in float by {others}; firmware computes in integers"
            )
        return quantizing[0].output[0]

    # One node

    def _visit(self, place: int, node: onnx.NodeProto) -> None:
        if node.op_type in ("DequantizeLinear", "Constant") and is_standard(node):
            self.seen.add(place)
        elif node.op_type == "QuantizeLinear" and is_standard(node):
            self._quantized(node)
        elif node.input and node.input[0] in self.views and place not in self.seen:
            self._moved(place, node)

    def _quantized(self, node: onnx.NodeProto) -> None:
        """Everything from the last codes to these."""
        self._see(node)
        name = node.output[0]
        if node.input[0] in {value.name for value in self.graph.input}:
            self._declare(node)
            return

        low, high, made_by = self._clipped(node)
        if made_by is None:
            raise _NoForm(f"QuantizeLinear ({_name(node)}) of a constant")
        self._declare(node)
        operator = self._arithmetic(made_by, name, low, high) or self._table(node)
        if operator is None:
            raise _NoForm(f"{made_by.op_type} ({_name(made_by)})")
        self.operators.append(operator)

    def _declare(self, node: onnx.NodeProto) -> None:
        name = node.output[0]
        scale, zero = (self.constants[parameter] for parameter in node.input[1:3])
        channels, height, width = self._planes(name)
        self.activations[name] = Activation(name, channels, height, width, np.float32(scale), int(zero))
        self.views[name] = _View(name)

    def _planes(self, name: str) -> tuple[int, int, int]:
        if name not in self.shapes:
            raise _NoForm(f"{name}, whose size is not fixed")
        shape = self.shapes[name]
        if not 2 <= len(shape) <= 4 or shape[0] != 1:
            raise _NoForm(f"{name} of shape {shape}")
        channels, *space = shape[1:]
        height, width = [1, 1, *space][-2:]
        return channels, height, width

    def _clipped(self, node: onnx.NodeProto) -> tuple[int, int, onnx.NodeProto | None]:
        """The bounds of codes, and the node before Relu and Clip."""
        scale, zero = (self.constants[parameter] for parameter in node.input[1:3])
        low, high, made_by = _LOW, _HIGH, self.index.producer(node.input[0])
        while (
            made_by is not None
            and made_by.op_type in ("Relu", "Clip")
            and self._codes(made_by.input[0]) is None
        ):
            bounds = bounds_of_clip(made_by, self.constants)
            if bounds is None:
                break
            self._see(made_by)
            codes = [np.rint(np.clip(b / float(scale) + float(zero), _LOW, _HIGH)) for b in bounds]
            low, high = max(low, int(codes[0])), min(high, int(codes[1]))
            made_by = self.index.producer(made_by.input[0])
        return low, high, made_by

    def _codes(self, name: str) -> _View | None:
        """The codes that a float is dequantized from."""
        node = self.index.producer(name)
        if node is None or node.op_type != "DequantizeLinear":
            return None
        return self.views.get(node.input[0])

    def _source(self, name: str) -> str | None:
        view = self._codes(name)
        return None if view is None or view.is_flat else view.activation

    def _see(self, node: onnx.NodeProto) -> None:
        self.seen.add(self.index.producers[node.output[0]])

    # Operators that make codes

    def _arithmetic(self, node: onnx.NodeProto, output: str, low: int, high: int) -> Operator | None:
        if not is_standard(node):
            return None
        weighted = self._weighted(node)
        if weighted is not None:
            name, source, weights = weighted
            return Conv(name, (source,), output, low, high, weights)

        sources = [self._source(name) for name in node.input if name]
        known = tuple(s for s in sources if s is not None)
        if len(known) != len(sources) or not known:
            return None
        operator = self._of_codes(node, known, output, low, high)
        if operator is not None:
            self._see(node)
        return operator

    def _of_codes(
        self, node: onnx.NodeProto, sources: tuple[str, ...], output: str, low: int, high: int
    ) -> Operator | None:
        name, made = _name(node), self.activations[output]
        read = [self.activations[s] for s in sources]
        if node.op_type == "Add" and len(read) == 2 and all(_size(r) == _size(made) for r in read):
            return Add(name, sources, output, low, high)
        if node.op_type == "Mul" and len(read) == 2:
            return self._product(name, read, made, low, high)
        if node.op_type == "Concat" and (low, high) == (_LOW, _HIGH):
            return self._concatenated(node, read, made)
        if node.op_type == "GlobalAveragePool" or is_global_average(node, self.constants, self.shapes):
            return GlobalAverage(name, sources, output, low, high)
        if node.op_type == "AveragePool":
            window = window_of(node, read[0], made)
            with_pads = bool(Attributes(node).number("count_include_pad", 0))
            plain = window is not None and window.dilation_rows == window.dilation_columns == 1
            return (
                AveragePool(name, sources, output, low, high, window, with_pads) if window and plain else None
            )
        return None

    def _product(
        self, name: str, read: list[Activation], made: Activation, low: int, high: int
    ) -> Operator | None:
        first, second = read if _size(read[0]) == _size(made) else reversed(read)
        fits = second.channels == made.channels and (
            _size(second) == _size(made) or second.height * second.width == 1
        )
        if _size(first) != _size(made) or not fits:
            return None
        return Multiply(name, (first.name, second.name), made.name, low, high)

    def _concatenated(
        self, node: onnx.NodeProto, read: list[Activation], made: Activation
    ) -> Operator | None:
        rank = len(self.shapes[node.output[0]])
        axis = Attributes(node).number("axis", 1) % rank
        axes = {1: "channels", rank - 2: "height", rank - 1: "width"} | {1: "channels"}
        if axis not in axes:
            return None

        places, at = [], 0
        for activation in read:
            table = self._rescaled(activation, made)
            where = {"channels": "channel", "height": "row", "width": "column"}[axes[axis]]
            places.append(Place(table, **{where: at}))
            at += getattr(activation, axes[axis])
        return Copy(_name(node), tuple(a.name for a in read), made.name, tuple(places), False, "Concat")

    def _rescaled(self, activation: Activation, made: Activation) -> bytes | None:
        """Codes on another scale, as QLinearConcat has them; None where the scale is the same."""
        if (activation.scale, activation.zero) == (made.scale, made.zero):
            return None
        values = (np.arange(256) - activation.zero).astype(np.float32) * activation.scale
        return quantized(values, made).tobytes()

    def _table(self, node: onnx.NodeProto) -> Operator | None:
        """An elementwise function of one activation."""

        def leaf(name: str) -> str | None:
            made_by = self.index.producer(name)
            of_codes = (
                made_by is not None
                and made_by.op_type == "DequantizeLinear"
                and made_by.input[0] in self.views
            )
            return made_by.input[0] if made_by is not None and of_codes else None

        found = island_of(node, self.index.producer, leaf)
        if found is None:
            return None
        nodes, codes = found
        view, made = self.views[codes], self.activations[node.output[0]]
        table = table_of(nodes, codes, self.constants, self.plan.graph)
        if table is None or view.is_flat or _size(self.activations[view.activation]) != _size(made):
            return None
        for one in nodes:
            self._see(one)
        kind = next(one.op_type for one in reversed(nodes[:-1]))
        return Copy(_name(nodes[-2]), (view.activation,), made.name, (Place(table),), False, kind)

    # Weights

    def _weighted(self, node: onnx.NodeProto) -> tuple[str, str, Weights] | None:
        """A layer's name, what it reads, and its weights; None if this is no node with weights."""
        product, bias = node, None
        if node.op_type == "Add":
            made = [self.index.producer(name) for name in node.input]
            products = [one for one in made if one is not None and one.op_type == "MatMul"]
            if len(products) != 1:
                return None
            product = products[0]
            bias = next((n for n in node.input if n != product.output[0]), None)
        found = next((f for f in WEIGHTED.get(product.op_type, ()) if f.integer_form), None)
        if found is None:
            return None

        stored = self.index.producer(product.input[found.place])
        view = self._codes(product.input[0])
        if stored is None or stored.input[0] not in self.plan.weights or view is None:
            return None
        bias = bias or found.bias_of(product)
        weights = self._weights(product, stored, view, bias)
        self._see(product)
        self._see(node)
        return product.input[found.place].removesuffix(".weight"), view.activation, weights

    def _weights(
        self, node: onnx.NodeProto, stored: onnx.NodeProto, view: _View, bias: str | None
    ) -> Weights:
        weight = self.plan.weights[stored.input[0]]
        codes = np.moveaxis(weight.codes(), weight.channel_axis, 0)
        scale = np.broadcast_to(np.asarray(weight.scale, np.float32), (len(codes),))
        source = self.activations[view.activation]
        if node.op_type == "Conv":
            made = self.shapes[node.output[0]]
            window = weight_window(node, codes.shape, source, made)
            inputs, groups = codes.shape[1], Attributes(node).number("group", 1)
        elif view.is_flat or source.height * source.width == 1:
            window, inputs, groups = Window(source.height, source.width), source.channels, 1
        else:
            window, inputs, groups = None, 0, 1
        if window is None:
            raise _NoForm(f"{node.op_type} ({_name(node)}) on inputs of shape {self.shapes[node.input[0]]}")

        grid = weight.source if isinstance(weight.source, QuantizedTensor) else None
        bits, parts = (8, None) if grid is None else (grid.bits, grid.channel_scale)
        if parts is not None:
            parts = np.abs(parts).astype(np.float32) if parts.shape == scale.shape else None
        rows, biases = np.ascontiguousarray(codes.reshape(len(codes), -1)), self._bias(bias, len(codes))
        return Weights(rows, scale, biases, window, inputs, groups, node.op_type, bits, parts)

    def _bias(self, name: str | None, n: int) -> npt.NDArray[np.int32]:
        node = None if name is None else self.index.producer(name)
        if node is None:
            return np.zeros(n, np.int32)
        return np.asarray(self.constants[node.input[0]], np.int32)

    # Operators on codes

    def _moved(self, place: int, node: onnx.NodeProto) -> None:
        self.seen.add(place)
        view, output = self.views[node.input[0]], node.output[0]
        activation = self.activations[view.activation]
        kind = node.op_type
        if kind in ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity"):
            self.views[output] = self._reshaped(node, view, activation)
            return
        if view.is_flat or kind not in ("MaxPool", "Pad"):
            raise _NoForm(f"{kind} ({_name(node)})")

        channels, height, width = self._planes(output)
        made = Activation(output, channels, height, width, activation.scale, activation.zero)
        if kind == "MaxPool":
            window = window_of(node, activation, made)
            if window is None:
                raise _NoForm(f"{kind} ({_name(node)})")
            operator: Operator = MaxPool(_name(node), (activation.name,), output, window)
        else:
            operator = self._padded(node, activation, made)
        self.activations[output], self.views[output] = made, _View(output)
        self.operators.append(operator)

    def _reshaped(self, node: onnx.NodeProto, view: _View, activation: Activation) -> _View:
        shape, before = self.shapes.get(node.output[0], ()), self.shapes[node.input[0]]
        axes = [n for n in shape if n != 1]
        if shape[:1] != (1,):
            raise _NoForm(f"{node.op_type} ({_name(node)}) to shape {shape}")
        if not view.is_flat and len(shape) >= _LEAST_AXES and axes == [n for n in before if n != 1]:
            same_planes = self._planes(node.output[0]) == _size(activation)
            if same_planes or len(axes) < _LEAST_AXES:
                return view if same_planes else _View(activation.name, is_flat=True)
        if axes in ([activation.size], []):
            return _View(activation.name, is_flat=True)
        raise _NoForm(f"{node.op_type} ({_name(node)}) to shape {shape}")

    def _padded(self, node: onnx.NodeProto, activation: Activation, made: Activation) -> Operator:
        pads = self.constants.get(node.input[1]) if len(node.input) > 1 else None
        mode = Attributes(node).text("mode", "constant")
        if pads is None or mode != "constant" or len(node.input) > 3 or np.min(pads) < 0:
            raise _NoForm(f"Pad ({_name(node)})")
        front = [int(n) for n in pads[: len(pads) // 2]]
        row, column = [0, 0, *front[2:]][-2:]
        place = Place(None, front[1], row, column)
        return Copy(_name(node), (activation.name,), made.name, (place,), True, "Pad")

    # The end

    def _ending(self) -> tuple[int, str]:
        name, ending = self.graph.output[0].name, ""
        node = self.index.producer(name)
        if node is not None and node.op_type in _ENDINGS:
            axis = Attributes(node).number("axis", -1 if node.op_type == "Softmax" else 0)
            shape = self.shapes[node.input[0]]
            if axis % len(shape) != len(shape) - 1 or len(shape) != 2:
                self.problems.append(f"{node.op_type} ({_name(node)}) along axis {axis} of shape {shape}")
                return 0, ""
            self._see(node)
            name, ending = node.input[0], node.op_type
            node = self.index.producer(name)
        while node is not None and node.op_type in ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity"):
            self._see(node)
            name = node.input[0]
            node = self.index.producer(name)

        try:
            return self._values(name, node), ending
        except _NoForm as problem:
            self.problems.append(str(problem))
        return 0, ""

    def _values(self, name: str, node: onnx.NodeProto | None) -> int:
        view = self._codes(name)
        if view is not None:
            self.operators.append(Values(name, (view.activation,), name))
            return self.activations[view.activation].size
        weighted = None if node is None else self._weighted(node)
        if node is None or weighted is None:
            shown = name if node is None else f"{node.op_type} ({_name(node)})"
            raise _NoForm(f"{shown} at the end, which computes in float")
        layer, source, weights = weighted
        if weights.kind == "Conv":
            raise _NoForm(f"Conv ({_name(node)}) with outputs in float")
        self.operators.append(ConvValues(layer, (source,), name, weights))
        return weights.outputs


def _size(activation: Activation) -> tuple[int, int, int]:
    return activation.channels, activation.height, activation.width


def _name(node: onnx.NodeProto) -> str:
    return node.name or node.output[0]
