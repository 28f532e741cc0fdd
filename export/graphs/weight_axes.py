"""Which tensors of a graph are weights, and which of their axes counts the output channels."""

from collections import defaultdict
from collections.abc import Iterator

import onnx
from onnx import TensorProto

from modelpress.export.graphs.operators import weight_inputs
from modelpress.export.lazy_tensors import LazyTensors

_FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16)
_LEAST_AXES = 2  # of a weight: a vector is a bias or a factor


def weight_axes(graph: onnx.GraphProto, tensors: LazyTensors, *, min_elements: int) -> dict[str, int | None]:
    """The channel axis of every weight, in file order; None where its uses disagree.

    A weight is a float32 or float16 tensor of at least two axes that an operator of the main graph computes with
    (`modelpress.export.graphs.operators`).

    Args:
        graph: The main graph; functions and nested graphs are not searched.
        tensors: The tensors it uses by name.
        min_elements: Smaller tensors are no weights.
    """
    axes: defaultdict[str, set[int]] = defaultdict(set)
    for node in graph.node:
        for name, axis in _weights_of(node, tensors):
            axes[name].add(axis)

    return {
        name: min(axes[name]) if len(axes[name]) == 1 else None
        for name in tensors
        if name in axes and tensors.spec(name).size >= min_elements
    }


def _weights_of(node: onnx.NodeProto, tensors: LazyTensors) -> Iterator[tuple[str, int]]:
    """The float weights of a node, and the axis of each that becomes the output's channels."""
    for found in weight_inputs(node):
        name = node.input[found.place]
        if name not in tensors:
            continue

        spec = tensors.spec(name)
        if spec.onnx_type in _FLOAT_TYPES and len(spec.shape) >= _LEAST_AXES:
            yield name, found.channel_axis(node, n_axes=len(spec.shape))
