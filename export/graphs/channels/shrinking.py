"""Pass: channels that are constant, or that nothing reads, are taken out with everything that hangs on them."""

from collections import defaultdict
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from modelpress.export.graphs.channels.branches import without_idle_branches
from modelpress.export.graphs.channels.following import followed, shapes_of
from modelpress.export.graphs.channels.removable import removable_groups
from modelpress.export.graphs.channels.slots import Slots
from modelpress.export.graphs.channels.trace import Array, Sink, Trace, attribute, set_attribute
from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.operators import attribute_of, is_standard
from modelpress.export.lazy_tensors import spec_of
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, Tensor, dense_array

_PLACE_OF_BIAS = 2  # of Conv, ConvTranspose and Gemm


@dataclass(frozen=True)
class Shrunk:
    """A model without its dead channels.

    Attributes:
        model: The model; the very one that was given where nothing could be removed.
        groups: Groups of coupled channels that were removed.
        branches: Additions of nothing that were removed, with all that led to them.
        parameters: Entries of all tensors, before and after.
        macs: Multiplications of convolutions and linear layers for one input, before and after; where sizes of inputs
            are open, for those that stand in for them.
    """

    model: QuantizedModel
    groups: int
    branches: int
    parameters: tuple[int, int]
    macs: tuple[int, int]

    @property
    def changed(self) -> bool:
        """Whether anything was removed."""
        return bool(self.groups or self.branches)


def without_dead_channels(model: QuantizedModel) -> Shrunk:
    """The same function, but for rounding, with fewer channels.

    A group of coupled channels goes where every layer that reads them can do without: its weights for them are zero,
    or the channels are constant and what they contribute goes into its bias. Padding surrounds a constant with zeros,
    so that only a constant of zero can be left out before it. A layer keeps at least one channel, unless nothing
    but zeros comes of it, and they are added to something else.

    Args:
        model: It is left as it is. Channels of its inputs and outputs stay, and those that operators read which mix
            them in other ways.

    Source: Fang et al. 2023, "DepGraph: Towards Any Structural Pruning", arXiv:2301.12900, for groups by dependency.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    trace = followed(QuantizedModel(graph, dict(model.tensors)))
    removed = removable_groups(trace)
    if removed:
        trace = followed(_Removal(trace, removed).carried_out())

    branches = without_idle_branches(trace)
    before = sizes_of(model)
    if not removed and not branches:
        return Shrunk(model, 0, 0, (before[0], before[0]), (before[1], before[1]))

    unread = _unread(trace)
    tensors = {name: tensor for name, tensor in trace.model.tensors.items() if name not in unread}
    smaller = QuantizedModel(trace.model.graph, tensors)
    after = sizes_of(smaller)
    return Shrunk(smaller, len(removed), branches, (before[0], after[0]), (before[1], after[1]))


def _unread(trace: Trace) -> set[str]:
    """What was read before the graph was changed, and is not now; what nothing ever read is not ours to drop."""
    left = GraphIndex.of_model(trace.model.graph).reads
    return {name for name, n in trace.index.reads.items() if n and not left[name]}


class _Removal:
    """Takes groups out of the graph and the tensors of a trace."""

    def __init__(self, trace: Trace, removed: set[int]) -> None:
        self._trace = trace
        self._removed = np.array(sorted(removed), np.int64)
        self._tensors: dict[str, Tensor] = dict(trace.model.tensors)
        self._graph = trace.model.graph

    def carried_out(self) -> QuantizedModel:
        """The smaller model."""
        for name, axes in self._axes().items():
            self._slice(name, axes)
        for edit in self._trace.edits:
            edit(self._alive)
        for sink in self._trace.sinks:
            self._make_up(sink)

        del self._graph.graph.value_info[:]  # they speak of shapes that are no more
        self._drop_unread()
        return QuantizedModel(self._graph, self._tensors)

    def _drop_unread(self) -> None:
        """Drop what others have taken the place of."""
        gone = _unread(self._trace)
        self._tensors = {name: tensor for name, tensor in self._tensors.items() if name not in gone}
        nodes = [n for n in self._graph.graph.node if not (n.op_type == "Constant" and gone & set(n.output))]
        kept = onnx.GraphProto(node=nodes)
        del self._graph.graph.node[:]
        self._graph.graph.node.extend(kept.node)

    def _alive(self, slots: Slots) -> npt.NDArray[np.bool_]:
        return ~np.isin(self._trace.groups.roots(slots), self._removed)

    def _axes(self) -> dict[str, dict[int, npt.NDArray[np.bool_]]]:
        """What stays of each tensor, by axis."""
        axes: defaultdict[str, dict[int, npt.NDArray[np.bool_]]] = defaultdict(dict)
        for claim in self._trace.claims:
            alive = self._alive(claim.slots)
            if not alive.all():
                axes[claim.tensor][claim.axis] = alive
        return axes

    def _slice(self, name: str, axes: dict[int, npt.NDArray[np.bool_]]) -> None:
        if name in self._tensors:
            for axis, kept in axes.items():
                self._tensors[name] = _sliced(self._tensors[name], axis, kept)
            return

        node = self._trace.index.producer(name)
        assert node is not None  # a constant inside the graph
        value = self._trace.fixed[name]
        for axis, kept in axes.items():
            value = value.compress(kept, axis)
        set_attribute(node, "value", numpy_helper.from_array(value))

    def _make_up(self, sink: Sink) -> None:
        """Put what the removed constants gave into the layer's bias."""
        gone = ~self._alive(sink.taken.slots) & sink.taken.known
        rows = self._alive(sink.made)
        missing = sink.columns[np.ix_(rows, gone)] @ sink.taken.value[gone]
        if not missing.any():
            return

        node = self._trace.index.nodes[sink.node]
        if node.op_type == "MatMul":
            self._add_behind(node, missing)
            return

        has_bias = len(node.input) > _PLACE_OF_BIAS and bool(node.input[_PLACE_OF_BIAS])
        bias = self._value(node.input[_PLACE_OF_BIAS]) if has_bias else np.zeros(len(missing))
        name = self._free(f"{node.output[0]}.bias")
        self._tensors[name] = (bias + missing).astype(self._type(node))
        del node.input[_PLACE_OF_BIAS:]
        node.input.append(name)

    def _add_behind(self, node: onnx.NodeProto, missing: Array) -> None:
        """A MatMul has no bias: into the constant added behind it, or into an addition of its own."""
        reader = self._trace.index.only_reader(node.output[0])
        add = None if reader is None else self._trace.index.nodes[reader]
        name = self._free(f"{node.output[0]}.bias")
        if add is not None and is_standard(add) and add.op_type == "Add":
            place = 1 if add.input[0] == node.output[0] else 0
            old = add.input[place]
            if old in self._tensors and self._value(old).size == len(missing):
                self._tensors[name] = (self._value(old) + missing).astype(self._type(node))
                add.input[place] = name
                return

        self._tensors[name] = missing.astype(self._type(node))
        product = self._free(f"{node.output[0]}.product")
        behind = onnx.helper.make_node("Add", [product, name], [node.output[0]])
        node.output[0] = product
        place = next(k for k, other in enumerate(self._graph.graph.node) if product in other.output)
        self._graph.graph.node.insert(place + 1, behind)

    def _value(self, name: str) -> npt.NDArray[np.float64]:
        """Of a constant as it is now, as one value for each channel."""
        if name in self._tensors:
            return np.asarray(dense_array(self._tensors[name]), np.float64).reshape(-1)
        node = self._trace.index.producer(name)
        assert node is not None  # a constant inside the graph
        return np.asarray(numpy_helper.to_array(attribute(node, "value")), np.float64).reshape(-1)

    def _type(self, node: onnx.NodeProto) -> npt.DTypeLike:
        weight = self._trace.constant(node.input[1])
        assert weight is not None  # else it were no sink
        return weight.dtype

    def _free(self, name: str) -> str:
        while name in self._tensors or name in self._trace.index.reads:
            name += "_"
        return name


def _sliced(tensor: Tensor, axis: int, kept: npt.NDArray[np.bool_]) -> Tensor:
    """The entries that stay along an axis; scales of channels go with these."""
    if not isinstance(tensor, QuantizedTensor):
        return np.ascontiguousarray(tensor.compress(kept, axis))

    codes = np.ascontiguousarray(tensor.codes.compress(kept, axis))
    support = None if tensor.support is None else np.ascontiguousarray(tensor.support.compress(kept, axis))
    if axis != tensor.channel_axis:
        return replace(tensor, codes=codes, support=support)

    return replace(
        tensor,
        codes=codes,
        support=support,
        scale=_of_kept(tensor.scale, kept),
        offset=None if tensor.offset is None else _of_kept(tensor.offset, kept),
        channel_scale=None if tensor.channel_scale is None else _of_kept(tensor.channel_scale, kept),
    )


def _of_kept(parameter: Any, kept: npt.NDArray[np.bool_]) -> Any:
    return parameter if np.ndim(parameter) == 0 else np.ascontiguousarray(parameter[kept])


def sizes_of(model: QuantizedModel) -> tuple[int, int]:
    """Entries of all tensors, and multiplications for one input, as in `Shrunk`."""
    specs = {name: spec_of(model.tensors, name) for name in model.tensors}
    shapes = shapes_of(model)
    macs = 0
    for node in model.graph.graph.node:
        weight = specs.get(node.input[1]) if len(node.input) > 1 else None
        out = shapes.get(node.output[0]) if node.output else None
        if weight is None or out is None or not is_standard(node):
            continue
        positions = prod(out[1:])
        if node.op_type == "Conv":
            macs += positions * prod(weight.shape[1:])
        elif node.op_type == "ConvTranspose":
            macs += prod(shapes.get(node.input[0], (0, 0))[1:]) * prod(weight.shape[1:])
        elif node.op_type in ("Gemm", "MatMul"):
            macs += positions * weight.shape[1 if attribute_of(node, "transB", 0) else 0]
    return sum(spec.size for spec in specs.values()), macs
