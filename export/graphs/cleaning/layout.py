"""Weights in the layout in which their operator reads them: nodes that only move numbers, carried out on codes.

Exporters leave a weight as training holds it and write the way to the operator's layout as nodes: a `Transpose` before
a MatMul; `Slice`, `Concat` and `Unsqueeze` where the gates of an LSTM change their order. On integer codes such a move
is exact, and the scales of channels move along.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.initializers import constants
from modelpress.export.graphs.operators import is_standard
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, Tensor

Array = npt.NDArray[Any]
MOVES = ("Identity", "Transpose", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Slice", "Concat")
_UNTIL_THE_END = np.iinfo(np.int32).max  # a Slice whose end is beyond it reaches the last element


def with_weights_in_place(model: QuantizedModel) -> QuantizedModel:
    """The same function without the nodes of the main graph that only move a constant tensor's entries.

    A tensor is moved where all its readers are such nodes and their results hold no more entries than it: one that is
    also read as it is (an embedding tied to a classifier) stays, and so do the nodes behind it. Scales per channel
    move along where the channels still lie along one axis; else the node stays.
    """
    work = _Work.of(model)
    kept = [node for node in model.graph.graph.node if not work.apply(node)]
    if not work.sources:
        return model

    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    del graph.graph.node[:]
    for node in kept:
        copy = graph.graph.node.add()
        copy.CopyFrom(node)
    return QuantizedModel(graph, work.finished(graph))


@dataclass
class _Work:
    """Tensors while they are moved.

    Attributes:
        tensors: By name, those that moves have made included.
        order: Names of the model's own tensors, in file order.
        constants: Small integers that say how to move, from `Constant` nodes.
        index: Of the model before anything moved.
        sources: What each made tensor was made of, by its name.
    """

    tensors: dict[str, Tensor]
    order: list[str]
    constants: dict[str, Array]
    index: GraphIndex
    sources: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, model: QuantizedModel) -> "_Work":
        index = GraphIndex.of_model(model.graph)
        return cls(dict(model.tensors), list(model.tensors), constants(model.graph), index)

    def apply(self, node: onnx.NodeProto) -> bool:
        """Carry out a node on tensors, if it is a move that may be; whether it was."""
        data = _moved_inputs(node)
        if not data or node.output[0] in self.index.kept or not all(map(self._may_move, data)):
            return False
        moved = self._result(node, data)
        if moved is None:
            return False

        output = node.output[0]
        origins = [self.sources.get(name, name) for name in data]
        self.tensors[output] = moved
        self.sources[output] = origins[0]
        return True

    def _result(self, node: onnx.NodeProto, data: Sequence[str]) -> Tensor | None:
        tensors = [self.tensors[name] for name in data]
        if node.op_type == "Concat":
            return _joined(tensors, _attribute(node, "axis", 0))
        move = self._move(node, np.ndim(_codes(tensors[0])))
        return None if move is None else _moved(tensors[0], move)

    def _may_move(self, name: str) -> bool:
        """Whether every reader of a tensor moves it, into results of no more entries."""
        kept, readers = self.index.kept, self.index.users(name)
        if name not in self.tensors or name in kept:
            return False
        if not all(name in _moved_inputs(node) and node.output[0] not in kept for node in readers):
            return False
        if self.index.reads[name] == 1:
            return True

        tensor, sizes = self.tensors[name], 0
        for node in readers:
            move = None if node.op_type == "Concat" else self._move(node, np.ndim(_codes(tensor)))
            if move is None:
                return False
            sizes += move(_codes(tensor)).size
        return sizes <= _codes(tensor).size

    def _move(  # noqa: PLR0911 - one line per operator
        self, node: onnx.NodeProto, n_axes: int
    ) -> Callable[[Array], Array] | None:
        """What the node does to an array; None where its arguments are no constants."""
        arguments = [self._constant(name) for name in node.input[1:]]
        if any(argument is None for argument in arguments):
            return None
        values = [argument.tolist() for argument in arguments if argument is not None]
        match node.op_type:
            case "Identity":
                return lambda array: array
            case "Transpose":
                order = _attribute(node, "perm", list(range(n_axes))[::-1])
                return lambda array: np.transpose(array, order)
            case "Unsqueeze" | "Squeeze":
                axes = values[0] if values else _attribute(node, "axes", None)
                if axes is None:
                    return None
                change = np.expand_dims if node.op_type == "Unsqueeze" else np.squeeze
                return lambda array: change(array, tuple(axes))
            case "Reshape":
                return lambda array: array.reshape(
                    _target(array, values[0], _attribute(node, "allowzero", 0))
                )
            case "Flatten":
                axis = _attribute(node, "axis", 1)
                return lambda array: array.reshape(int(np.prod(array.shape[:axis])), -1)
            case "Slice" if len(values) >= 2:
                return lambda array: array[_slices(array, *values)]
        return None

    def _constant(self, name: str) -> Array | None:
        if name in self.constants:
            return self.constants[name]
        tensor = self.tensors.get(name)
        return tensor if isinstance(tensor, np.ndarray) and tensor.dtype.kind == "i" else None

    def finished(self, graph: onnx.ModelProto) -> dict[str, Tensor]:
        """The tensors that `graph` reads, made ones under the names of what they were made of; renames the reads."""
        uses = GraphIndex.of_model(graph).reads
        finished = {name: self.tensors[name] for name in self.order if uses[name] or name in self.index.kept}
        renamed = {}
        for made, source in self.sources.items():
            if uses[made]:
                name = source if source not in finished else made
                finished[name] = self.tensors[made]
                renamed[made] = name
        for node in graph.graph.node:
            for place, name in enumerate(node.input):
                node.input[place] = renamed.get(name, name)
        places = {name: place for place, name in enumerate(self.order)}
        return dict(sorted(finished.items(), key=lambda item: places.get(item[0], len(places))))


def _moved_inputs(node: onnx.NodeProto) -> list[str]:
    """The names whose entries a node moves; none for other nodes."""
    if node.op_type not in MOVES or not is_standard(node) or len(node.output) != 1:
        return []
    return list(node.input) if node.op_type == "Concat" else list(node.input[:1])


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _target(array: Array, shape: Sequence[int], allow_zero: int) -> list[int]:
    """The shape that Reshape asks for: 0 keeps an axis."""
    return [array.shape[k] if n == 0 and not allow_zero else n for k, n in enumerate(shape)]


def _slices(
    array: Array,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
) -> tuple[slice, ...]:
    chosen = [slice(None)] * array.ndim
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = k if axes is None else axes[k]
        chosen[axis] = slice(start, None if end >= _UNTIL_THE_END else end, 1 if steps is None else steps[k])
    return tuple(chosen)


def _codes(tensor: Tensor) -> Array:
    return tensor.codes if isinstance(tensor, QuantizedTensor) else np.asarray(tensor)


def _moved(tensor: Tensor, move: Callable[[Array], Array]) -> Tensor | None:
    """The tensor after a move; None where its channels no longer lie along one axis."""
    if not isinstance(tensor, QuantizedTensor):
        return np.ascontiguousarray(move(np.asarray(tensor)))
    codes = np.ascontiguousarray(move(tensor.codes))
    if codes.ndim == 0:
        return None
    found = _channels_after(tensor, move)
    if found is None and _is_per_channel(tensor):
        return None

    axis, order = found or (0, None)
    return replace(
        tensor,
        codes=codes,
        support=None if tensor.support is None else np.ascontiguousarray(move(tensor.support)),
        scale=_chosen(tensor.scale, order),
        offset=None if tensor.offset is None else _chosen(tensor.offset, order),
        channel_scale=None if tensor.channel_scale is None else _chosen(tensor.channel_scale, order),
        channel_axis=axis,
    )


def _is_per_channel(tensor: QuantizedTensor) -> bool:
    return np.ndim(tensor.scale) > 0 or tensor.channel_scale is not None


def _chosen(parameter: Any, order: Array | None) -> Any:
    return parameter if order is None or np.ndim(parameter) == 0 else np.ascontiguousarray(parameter[order])


def _channels_after(
    tensor: QuantizedTensor, move: Callable[[Array], Array]
) -> tuple[int, npt.NDArray[np.int64]] | None:
    """The axis of the channels after a move, and which channel is where along it."""
    shape = [1] * tensor.codes.ndim
    shape[tensor.channel_axis] = -1
    numbers = np.broadcast_to(np.arange(tensor.channels).reshape(shape), tensor.shape)
    moved = move(numbers)
    for axis in range(moved.ndim):
        rows = np.moveaxis(moved, axis, 0).reshape(moved.shape[axis], -1)
        if rows.size and (rows == rows[:, :1]).all():
            return axis, rows[:, 0]
    return None


def _joined(tensors: Sequence[Tensor], axis: int) -> Tensor | None:
    """Tensors side by side; None where their codes do not share a grid, or channels do not lie along `axis`."""
    coded = [tensor for tensor in tensors if isinstance(tensor, QuantizedTensor)]
    if not coded:
        return np.concatenate([np.asarray(tensor) for tensor in tensors], axis)
    if len(coded) < len(tensors):
        return None
    first = coded[0]
    axis %= first.codes.ndim
    kinds = {(t.bits, t.offset is None, np.dtype(t.dtype), t.channel_scale is None) for t in coded}
    if len(kinds) > 1:
        return None

    # one common set of parameters stays as it is; different ones are laid along the joined axis
    parameters = [(t.scale, t.offset, t.channel_scale) for t in coded]
    alike = all(_same(p, parameters[0]) for p in parameters)
    per_channel = any(map(_is_per_channel, coded))
    along = axis if not alike or (per_channel and first.channel_axis == axis) else first.channel_axis
    if per_channel and along == axis and any(_is_per_channel(t) and t.channel_axis != axis for t in coded):
        return None
    spread = along == axis and (per_channel or not alike)
    support = None
    if any(t.support is not None for t in coded):
        support = np.concatenate([t.nonzero for t in coded], axis)
    return replace(
        first,
        codes=np.concatenate([t.codes for t in coded], axis),
        support=support,
        scale=_laid([t.scale for t in coded], coded, axis) if spread else first.scale,
        offset=first.offset
        if first.offset is None or not spread
        else _laid([t.offset for t in coded], coded, axis),
        channel_scale=first.channel_scale
        if first.channel_scale is None or not spread
        else _laid([t.channel_scale for t in coded], coded, axis),
        channel_axis=along,
    )


def _same(left: Sequence[Any], right: Sequence[Any]) -> bool:
    return all(np.array_equal(a, b) if a is not None else b is None for a, b in zip(left, right, strict=True))


def _laid(
    parameters: Sequence[Any], tensors: Sequence[QuantizedTensor], axis: int
) -> npt.NDArray[np.float32]:
    """One value per entry of the joined axis."""
    parts = [
        np.broadcast_to(np.asarray(p, np.float32), (t.shape[axis],))
        for p, t in zip(parameters, tensors, strict=True)
    ]
    return np.concatenate(parts)
