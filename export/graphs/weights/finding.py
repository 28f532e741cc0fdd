"""Which tensors of a graph are weights, and which of their axes counts the output channels.

A weight is looked for behind nodes that move it or change its type, in nested graphs (If, Loop, Scan) and in local
functions. A function is looked into once for every kind of arguments, however often it is called.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from modelpress.export.graphs.operators import output_axis, weight_inputs
from modelpress.export.graphs.weights.views import Array, View, views_behind
from modelpress.export.lazy_tensors import LazyTensors

FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_LEAST_AXES = 2  # of a weight where it is used: a vector is a bias or a factor
_MAX_CONSTANT = 64  # elements of a list of axes, bounds or lengths
_MAX_CALLS = 10_000  # of functions looked into; a graph may ask for any number
_ARGUMENT = "argument {}"


@dataclass
class Findings:
    """What is known of the tensors of a graph.

    Attributes:
        axes: Channel axes of every weight, one for each of its uses; None where no axis of it is one of the output.
        readers: The operators that read a tensor, or what is moved of it, by its name.
        rounded: Weights that nodes on the way round to a grid of their own.
    """

    axes: defaultdict[str, set[int | None]] = field(default_factory=lambda: defaultdict(set))
    readers: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    rounded: set[str] = field(default_factory=set)

    def channel_axes(self, tensors: LazyTensors, *, min_elements: int) -> dict[str, int | None]:
        """The channel axis of every float weight of at least so many elements, in file order; None: not one axis."""
        return {
            name: next(iter(self.axes[name])) if len(self.axes[name]) == 1 else None
            for name in tensors
            if name in self.axes
            and tensors.spec(name).size >= min_elements
            and tensors.spec(name).onnx_type in FLOAT_TYPES
        }


def find_weights(model: onnx.ModelProto, tensors: LazyTensors) -> Findings:
    """Look for the weights among the tensors of a model.

    Args:
        model: Its graph, nested graphs and functions.
        tensors: Of its main graph, by name.
    """
    finder = _Finder(model)
    views = {name: [View.of(name, tensors.spec(name).shape)] for name in tensors}
    constants = {
        name: np.asarray(tensors[name])
        for name in tensors
        if tensors.spec(name).size <= _MAX_CONSTANT and tensors.spec(name).onnx_type == TensorProto.INT64
    }
    finder.walk(model.graph.node, _Scope(views, constants))
    return finder.found


@dataclass
class _Scope:
    """Names that nodes may read: their views, and values of small constants; those of graphs around come with them."""

    views: dict[str, list[View]]
    constants: dict[str, Array]
    attributes: Mapping[str, onnx.AttributeProto] = field(default_factory=dict)

    def inside(self) -> "_Scope":
        return _Scope(dict(self.views), dict(self.constants), self.attributes)


class _Finder:
    """One walk over all nodes in their order."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.found = Findings()
        self._functions = {(f.domain, f.name, f.overload): f for f in model.functions}
        self._calls: dict[tuple[object, ...], tuple[Findings, list[list[View]]]] = {}
        self._open: set[tuple[str, str, str]] = set()

    def walk(self, nodes: Sequence[onnx.NodeProto], scope: _Scope) -> None:
        for node in nodes:
            if node.op_type == "Constant":
                self._constant(node, scope)
                continue

            views = [scope.views.get(name, []) for name in node.input]
            function = self._functions.get((node.domain, node.op_type, node.overload))
            if function is not None:
                behind = self._call(function, node, views)
            else:
                self._use(_with_attributes(node, scope.attributes), views)
                behind = views_behind(node, views, scope.constants.get)

            scope.views.update(zip(node.output, behind, strict=False))
            for part in _graphs_of(node):
                self.walk(part.node, scope.inside())

    def _constant(self, node: onnx.NodeProto, scope: _Scope) -> None:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if value is None or len(node.output) != 1:
            return

        scope.views[node.output[0]] = [View.of("", value.dims)]
        if int(np.prod(list(value.dims))) <= _MAX_CONSTANT and value.data_type == TensorProto.INT64:
            scope.constants[node.output[0]] = numpy_helper.to_array(value)

    def _use(self, node: onnx.NodeProto, views: Sequence[Sequence[View]]) -> None:
        """Note who reads what, and as a weight along which axis."""
        for view in (view for own in views for view in own):
            self.found.readers[view.source].add(node.op_type)

        for place in weight_inputs(node):
            for view in views[place.place]:
                if len(view.shape) < _LEAST_AXES or not view.source:
                    continue

                axis = output_axis(node, place, n_axes=len(view.shape))
                valid = axis is not None and 0 <= axis < len(view.shape)
                self.found.axes[view.source].add(view.axes[axis] if axis is not None and valid else None)
                if view.is_quantized:
                    self.found.rounded.add(view.source)

    def _call(
        self, function: onnx.FunctionProto, node: onnx.NodeProto, views: Sequence[Sequence[View]]
    ) -> list[list[View]]:
        """What a function does with its arguments, told in terms of the tensors that they show."""
        name = function.domain, function.name, function.overload
        shapes = tuple(tuple(view.shape for view in own) for own in views)
        key = (name, shapes, *(a.SerializeToString(deterministic=True) for a in node.attribute))
        if key not in self._calls:
            if name in self._open or len(self._calls) >= _MAX_CALLS or not any(shapes):
                return [[] for _ in node.output]
            self._calls[key] = self._look_into(function, node, views)

        inner, results = self._calls[key]
        shown = {_ARGUMENT.format((k, i)): view for k, own in enumerate(views) for i, view in enumerate(own)}
        for argument, axes in inner.axes.items():
            view = shown[argument]
            self.found.axes[view.source].update(None if axis is None else view.axes[axis] for axis in axes)
            if view.is_quantized or argument in inner.rounded:
                self.found.rounded.add(view.source)
        for argument, readers in inner.readers.items():
            if argument in shown:
                self.found.readers[shown[argument].source].update(readers)

        return [
            [
                shown[view.source].moved(shape=view.shape, axes=view.axes)
                for view in own
                if view.source in shown
            ]
            for own in results
        ]

    def _look_into(
        self, function: onnx.FunctionProto, node: onnx.NodeProto, views: Sequence[Sequence[View]]
    ) -> tuple[Findings, list[list[View]]]:
        outer, self.found = self.found, Findings()
        name = function.domain, function.name, function.overload
        self._open.add(name)
        arguments = {
            argument: [View.of(_ARGUMENT.format((k, i)), view.shape) for i, view in enumerate(own)]
            for k, (argument, own) in enumerate(zip(function.input, views, strict=False))
        }
        attributes = {a.name: a for a in (*function.attribute_proto, *node.attribute)}
        scope = _Scope(arguments, {}, attributes)
        self.walk(function.node, scope)

        results = [scope.views.get(name, []) for name in function.output]
        self._open.discard(name)
        inner, self.found = self.found, outer
        return inner, results


def _with_attributes(node: onnx.NodeProto, given: Mapping[str, onnx.AttributeProto]) -> onnx.NodeProto:
    """The node of a function with those of its attributes filled in that a call gives."""
    if not any(a.ref_attr_name for a in node.attribute):
        return node

    filled = onnx.NodeProto()
    filled.CopyFrom(node)
    for attribute in filled.attribute:
        if attribute.ref_attr_name in given:
            name = attribute.name
            attribute.CopyFrom(given[attribute.ref_attr_name])
            attribute.name = name
    return filled


def _graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
