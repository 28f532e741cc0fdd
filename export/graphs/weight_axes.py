"""Which tensors of a graph are weights, and which of their axes counts the output channels."""

from collections import defaultdict
from collections.abc import Iterator

import onnx
from onnx import TensorProto

from modelpress.export.lazy_tensors import LazyTensors

_FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16)


def weight_axes(graph: onnx.GraphProto, tensors: LazyTensors, *, min_elements: int) -> dict[str, int | None]:
    """The channel axis of every weight, in file order; None where its uses disagree.

    A weight is a float32 or float16 tensor of at least two axes that a Conv, ConvTranspose, Gemm, MatMul or
    Gather of the main graph computes with.

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
    if node.domain not in ("", "ai.onnx"):
        return
    for position, name in enumerate(node.input):
        if name in tensors and tensors.spec(name).onnx_type in _FLOAT_TYPES:
            axis = _channel_axis(node, position, n_axes=len(tensors.spec(name).shape))
            if axis is not None:
                yield name, axis


def _channel_axis(  # noqa: PLR0911 - one line per operator
    node: onnx.NodeProto, position: int, *, n_axes: int
) -> int | None:
    """The axis of an input that becomes the output's channels; None where the input is no weight."""
    if n_axes < 2:
        return None
    match node.op_type, position:
        case ("Conv", 1) | ("Gather", 0):
            return 0
        case ("ConvTranspose", 1):
            return 1
        case ("Gemm", 0):
            return 1 if _flag(node, "transA") else 0
        case ("Gemm", 1):
            return 0 if _flag(node, "transB") else 1
        case ("MatMul", 0):
            return n_axes - 2
        case ("MatMul", 1):
            return n_axes - 1
    return None


def _flag(node: onnx.NodeProto, name: str) -> bool:
    return any(attribute.i for attribute in node.attribute if attribute.name == name)
