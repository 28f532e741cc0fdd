"""Fold batch normalisations into the convolutions before them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.export.graphs.parts import graphs_of, names_in
from modelpress.export.lazy_tensors import spec_of
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, Tensor, dense_array

_DEFAULT_EPSILON = 1e-5  # of the operator


def fold_batch_norm(model: QuantizedModel) -> QuantizedModel:
    """The same function with every foldable BatchNormalization in the weight and bias of its convolution.

    Foldable is one in inference mode with constant float32 parameters, whose input is a Conv's only output, read
    by nothing else, and whose Conv shares its weight with no other node. Codes stay as they are: the factor becomes
    part of `QuantizedTensor.channel_scale`. The Conv's output takes the name of the normalised one.

    Source: Jacob et al. 2018, arXiv:1712.05877, eq. (14).
    """
    if not any(node.op_type == "BatchNormalization" for node in model.graph.graph.node):
        return model
    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    uses = _uses(graph)
    producers = {name: node for node in graph.graph.node for name in node.output}
    tensors: dict[str, Tensor] = dict(model.tensors)
    taken = names_in(graph)
    kept = []
    for node in graph.graph.node:
        conv = producers.get(node.input[0]) if node.input else None
        if conv is None or not _is_foldable(node, conv, tensors, uses):
            kept.append(node)
            continue
        _fold(node, conv, tensors, taken)
        conv.output[0] = node.output[0]
        producers[node.output[0]] = conv
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.graph.node[:]
    graph.graph.node.extend(copies)
    left = _uses(graph)
    return QuantizedModel(graph, {name: t for name, t in tensors.items() if left[name] or not uses[name]})


def _uses(graph: onnx.ModelProto) -> Counter[str]:
    """How often each name is read, by nodes of any depth and as a graph's output."""
    uses: Counter[str] = Counter()
    for _, part in graphs_of(graph):
        uses.update(name for node in part.node for name in node.input)
        uses.update(value.name for value in part.output)
    return uses


def _is_foldable(
    norm: onnx.NodeProto, conv: onnx.NodeProto, tensors: Mapping[str, Tensor], uses: Counter[str]
) -> bool:
    kinds = (norm.op_type, conv.op_type)
    if kinds != ("BatchNormalization", "Conv") or {norm.domain, conv.domain} - {"", "ai.onnx"}:
        return False
    attributes = {attribute.name: attribute for attribute in norm.attribute}
    in_training = "training_mode" in attributes and attributes["training_mode"].i
    constants = [*norm.input[1:], *conv.input[1:]]
    weight = conv.input[1]
    return (
        not in_training
        and len(norm.output) == 1
        and uses[norm.input[0]] == 1
        and uses[weight] == 1
        and all(name in tensors and _is_float32(tensors, name) for name in constants)
        and _counts_outputs(tensors[weight])
    )


def _is_float32(tensors: Mapping[str, Tensor], name: str) -> bool:
    return spec_of(tensors, name).onnx_type == onnx.TensorProto.FLOAT


def _counts_outputs(weight: Tensor) -> bool:
    return not isinstance(weight, QuantizedTensor) or weight.channel_axis == 0


def _fold(norm: onnx.NodeProto, conv: onnx.NodeProto, tensors: dict[str, Tensor], taken: set[str]) -> None:
    gamma, beta, mean, variance = (np.asarray(dense_array(tensors[n]), np.float64) for n in norm.input[1:])
    epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), _DEFAULT_EPSILON)
    factor = gamma / np.sqrt(variance + epsilon)
    before = np.asarray(dense_array(tensors[conv.input[2]]), np.float64) if len(conv.input) > 2 else 0.0
    bias = (beta + factor * (before - mean)).astype(np.float32)
    tensors[conv.input[1]] = _scaled(tensors[conv.input[1]], factor.astype(np.float32))
    name = norm.input[2]  # beta's: it is no longer needed, unless it serves another node as well
    while not _is_free(name, bias, tensors, taken):
        name += ".folded"
    tensors[name] = bias
    del conv.input[2:]
    conv.input.append(name)


def _is_free(
    name: str, bias: npt.NDArray[np.float32], tensors: Mapping[str, Tensor], taken: set[str]
) -> bool:
    if name in tensors:
        return np.array_equal(dense_array(tensors[name]), bias)
    return name not in taken


def _scaled(weight: Tensor, factor: npt.NDArray[np.float32]) -> Tensor:
    if isinstance(weight, QuantizedTensor):
        return replace(
            weight, channel_scale=factor if weight.channel_scale is None else weight.channel_scale * factor
        )
    return np.asarray(weight, np.float32) * factor.reshape(-1, *[1] * (weight.ndim - 1))
