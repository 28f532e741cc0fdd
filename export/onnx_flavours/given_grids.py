"""Models that come with QuantizeLinear and DequantizeLinear: their weights as codes, their activations in float.

Training with fake quantization and other tools write such models. The codes and scales of weights are kept; which
activations run in eight bits, and in which ranges, is for the flavour to choose.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.initializers import constants
from modelpress.export.graphs.operators import is_standard
from modelpress.export.grids import along_axis
from modelpress.export.onnx_flavours.constant_nodes import unused_names
from modelpress.export.onnx_flavours.int8_regions import MOVING
from modelpress.export.post_training.known_grids import Rounding, tensor_of_codes
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, Tensor, dense_array

Array = npt.NDArray[np.generic]
_BYTES = (np.dtype(np.int8), np.dtype(np.uint8))
_WITHIN_BOUNDS = MOVING | {
    "GlobalAveragePool",
    "AveragePool",
}  # the last with zeros around it, which all grids hold


def without_given_grids(model: QuantizedModel) -> QuantizedModel:
    """The same network without Q/DQ nodes in its main graph, as far as they lie on constants or come in pairs.

    What DequantizeLinear makes of a constant becomes a tensor under the name of its output: codes on their grid, or
    float values of vectors. A pair of nodes on an activation becomes a Clip to the range of its grid, for it may stand
    for a rectifier; with it goes the rounding that it does.
    """
    if not any(node.op_type == "DequantizeLinear" for node in model.graph.graph.node):
        return model

    work = _Work(
        GraphIndex.of_model(model.graph),
        model.tensors,
        constants(model.graph),
        unused_names(model.graph, model.tensors),
    )
    kept = [new for node in work.index.nodes for new in work.instead_of(node)]
    return work.finished(model.graph, kept)


@dataclass
class _Work:
    """Tensors and names while nodes are removed.

    Attributes:
        unused: New names.
        made: Tensors that removed nodes made, and bounds of ranges.
        renamed: Outputs of removed pairs, and the activation that is read in their place.
        bounds: Least and greatest value of activations, where they are known.
    """

    index: GraphIndex
    tensors: Mapping[str, Tensor]
    small: Mapping[str, Array]
    unused: Iterator[str]
    made: dict[str, Tensor] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)

    def instead_of(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The node itself, or what takes its place: a Clip, or nothing."""
        if node.op_type in _WITHIN_BOUNDS and node.input[0] in self.bounds:
            self.bounds[node.output[0]] = self.bounds[node.input[0]]
        if node.op_type != "DequantizeLinear" or not is_standard(node) or node.output[0] in self.index.kept:
            return [node]

        codes = node.input[0]
        maker = self.index.producer(codes)
        stored = self._constant(codes)
        if stored is not None and not isinstance(stored, QuantizedTensor):
            grid = self._grid(node, stored.ndim)
            made = None if grid is None else _dequantized(stored, grid)
        elif maker is None or maker.op_type != "QuantizeLinear" or not is_standard(maker):
            return [node]
        elif maker.input[0] in self.tensors:
            made = self._rounded_weight(maker, node)
        else:
            return self._clipped(maker, node)

        if made is None:
            return [node]
        self.made[node.output[0]] = made
        return []

    def _rounded_weight(self, maker: onnx.NodeProto, node: onnx.NodeProto) -> Tensor | None:
        weight = dense_array(self.tensors[maker.input[0]])
        grid, rounding = (self._grid(part, weight.ndim) for part in (node, maker))
        if grid is None or rounding is None or weight.dtype != np.float32:
            return None
        return _dequantized(rounding.codes_of(weight), grid, less_zero=True)

    def _clipped(self, maker: onnx.NodeProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """A pair on an activation: a Clip to the range of its codes, where that is not known to hold already."""
        grid = self._grid(maker, 1)
        is_pair = list(maker.input[1:]) == list(node.input[1:]) and maker.output[0] not in self.index.kept
        if not is_pair or grid is None or grid.scale.ndim or grid.zero_point.dtype not in _BYTES:
            return [node]

        source = self.renamed.get(maker.input[0], maker.input[0])
        limits = np.iinfo(grid.zero_point.dtype)
        low, high = (float((n - int(grid.zero_point)) * grid.scale) for n in (limits.min, limits.max))
        least, most = self.bounds.get(source, (-np.inf, np.inf))
        self.bounds[node.output[0]] = max(low, least), min(high, most)

        # what comes in is as the caller has it: there the grid's ends are no part of the network
        if (low <= least and most <= high) or self.index.producer(maker.input[0]) is None:
            self.renamed[node.output[0]] = source
            return []

        names = [next(self.unused) for _ in range(2)]
        for name, bound in zip(names, (low, high), strict=True):
            self.made[name] = np.array(bound, np.float32)
        return [helper.make_node("Clip", [source, *names], [node.output[0]])]

    def _constant(self, name: str) -> Tensor | None:
        return self.tensors.get(name, self.small.get(name))

    def _grid(self, node: onnx.NodeProto, n_axes: int) -> Rounding | None:
        """Scale and zero point of a node; None where they are no constants, or there are other options."""
        scale, zero = (self._array(name) for name in (*node.input[1:3], "")[:2])
        return Rounding.of(node, scale, zero, n_axes=n_axes)

    def _array(self, name: str) -> Array | None:
        value = self._constant(name)
        return None if isinstance(value, QuantizedTensor) else value

    def finished(self, graph: onnx.ModelProto, kept: list[onnx.NodeProto]) -> QuantizedModel:
        """The graph of the nodes that are left, without those whose results nothing reads any more."""
        result = onnx.ModelProto()
        result.CopyFrom(graph)
        del result.graph.node[:]
        for node in kept:
            copy = result.graph.node.add()
            copy.CopyFrom(node)
            for place, name in enumerate(node.input):
                copy.input[place] = self.renamed.get(name, name)

        before, reads = self.index.reads, GraphIndex.of_model(result).reads
        for node in list(result.graph.node):
            if node.op_type == "QuantizeLinear" and before[node.output[0]] and not reads[node.output[0]]:
                result.graph.node.remove(node)

        reads = GraphIndex.of_model(result).reads
        tensors = {name: t for name, t in self.tensors.items() if reads[name] or not before[name]}
        return QuantizedModel(result, {**tensors, **self.made})


def _dequantized(codes: Array, grid: Rounding, *, less_zero: bool = False) -> Tensor | None:
    """What DequantizeLinear makes of codes; None of a matrix that 8 bits do not hold."""
    zero = along_axis(grid.zero_point, grid.axis, codes.ndim)
    if codes.dtype in _BYTES or less_zero:
        steps = codes.astype(np.int16) - (0 if less_zero else zero.astype(np.int16))
        if codes.ndim > 1:
            return tensor_of_codes(steps, grid.scale, grid.axis)
    else:
        steps = codes.astype(np.int64) - zero.astype(np.int64)

    values: npt.NDArray[np.float32] = steps.astype(np.float32)
    values *= along_axis(grid.scale, grid.axis, codes.ndim)
    return values
