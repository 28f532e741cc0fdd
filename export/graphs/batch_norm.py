"""Fold batch normalisations into the convolutions and linear layers before them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx
from array_api_compat import array_namespace

from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.operators import (
    WEIGHTED,
    WeightInput,
    attribute_of,
    is_standard,
    weight_inputs,
)
from modelpress.export.graphs.parts import names_in
from modelpress.export.grids import Array
from modelpress.export.lazy_tensors import spec_of
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, Tensor, dense_array

_DEFAULT_EPSILON = 1e-5  # of the operator
_FOLDABLE = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul"}
)  # operators that a normalisation is folded into
_OF_GEMM = WEIGHTED["Gemm"][0]
_KEEPING_AXES = frozenset(  # operators whose output has as many axes as their first input
    {"BatchNormalization", "Clip", "Dropout", "Elu", "HardSwish", "Identity", "LeakyRelu", "MatMul", "Relu"}
    | {"Sigmoid", "Softmax", "Tanh"}
)


def folded(
    gamma: Array, beta: Array, mean: Array, variance: Array, *, epsilon: float, bias: Array | float = 0.0
) -> tuple[Array, Array]:
    """Factor and bias per channel of a normalised convolution, ``norm(w * x + bias) = factor * (w * x) + bias'``.

    The one place of this formula: the result is infinite or NaN where it has no finite one, and not checked here.

    Args:
        gamma: Shape ``(out,)``, of NumPy or torch, in float64, as the next three.
        beta: The shift of the normalisation.
        mean: Running mean.
        variance: Running variance.
        epsilon: Added to the variance.
        bias: Of the convolution; shape ``(out,)``, or 0.

    Source: Jacob et al. 2018, arXiv:1712.05877, eq. (14).

    Example:
        >>> one = np.ones(1)
        >>> folded(2 * one, one, 3 * one, 4 * one, epsilon=0.0)
        (array([1.]), array([-2.]))
    """
    xp = array_namespace(gamma)
    factor = gamma / xp.sqrt(variance + epsilon)
    return factor, beta + factor * (bias - mean)


def fold_batch_norm(model: QuantizedModel, *, half: bool = False) -> QuantizedModel:
    """The same function with every foldable BatchNormalization in the weight and bias of the layer before it.

    Foldable is one in inference mode with constant float32 parameters, whose input is the only output of a layer (Conv,
    ungrouped ConvTranspose, plain Gemm, or MatMul of matrices), read by nothing else, where the layer shares its weight
    with no other node. Codes stay as they are: the factor becomes part of `QuantizedTensor.channel_scale`. The layer's
    output takes the name of the normalised one; a MatMul becomes a Gemm, which has a bias.

    Args:
        model: Any; graphs without batch norm are returned as they are.
        half: Round factors and biases to float16, for a network whose own parameters have been rounded.

    Source: Jacob et al. 2018, arXiv:1712.05877, eq. (14).
    """
    if not any(node.op_type == "BatchNormalization" for node in model.graph.graph.node):
        return model

    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    folding = _Folding(graph, dict(model.tensors), half=half)
    nodes = folding.nodes_left()
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)

    # what nothing reads any more goes; what nothing read before is not ours to drop
    left, before = GraphIndex.of_model(graph).reads, folding.index.reads
    kept = {name: tensor for name, tensor in folding.tensors.items() if left[name] or not before[name]}
    return QuantizedModel(graph, kept)


@dataclass(frozen=True)
class NormalisedLayer:
    """A layer and the batch normalisation of its output, by the names of their tensors.

    Attributes:
        weight: Of the layer.
        bias: Of the layer; empty where it has none.
        mean: Of the normalisation, running.
        variance: Likewise.
        epsilon: Added to the variance.
    """

    weight: str
    bias: str
    mean: str
    variance: str
    epsilon: float


def normalised_layers(model: QuantizedModel) -> list[NormalisedLayer]:
    """The layers that `fold_batch_norm` folds a normalisation into; the model is left as it is."""
    finder = _Folding(model.graph, dict(model.tensors), half=False)
    hosts = ((norm, finder.host(norm)) for norm in finder.index.nodes)
    found = [(norm, host) for norm, host in hosts if host is not None and finder.is_foldable(norm, host)]
    return [
        NormalisedLayer(
            weight=host.input[_weight_of(host).place],
            bias=_weight_of(host).bias_of(host) or "",
            mean=norm.input[3],
            variance=norm.input[4],
            epsilon=_epsilon_of(norm),
        )
        for norm, host in found
    ]


class _Folding:
    """Folds what can be folded; changes the nodes of `graph` and `tensors`."""

    def __init__(self, graph: onnx.ModelProto, tensors: dict[str, Tensor], *, half: bool) -> None:
        self.tensors = tensors
        self._half = half
        self._n_axes = {v.name: len(v.type.tensor_type.shape.dim) for v in graph.graph.input}
        self.index = GraphIndex.of_model(graph)
        self._taken = names_in(graph)
        self._hosts: dict[str, onnx.NodeProto] = {}  # a normalisation's output -> the Conv that makes it now

    def nodes_left(self) -> list[onnx.NodeProto]:
        """All nodes but the normalisations that have become part of another."""
        kept = []
        for node in self.index.nodes:
            conv = self.host(node)
            if conv is None or not self.is_foldable(node, conv):
                kept.append(node)
                continue

            self._fold(node, conv)
            conv.output[0] = node.output[0]
            self._hosts[node.output[0]] = conv

        return kept

    def host(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The node that makes the first input."""
        if not node.input:
            return None

        return self._hosts.get(node.input[0]) or self.index.producer(node.input[0])

    def is_foldable(self, norm: onnx.NodeProto, conv: onnx.NodeProto) -> bool:
        if not (is_standard(norm) and norm.op_type == "BatchNormalization"):
            return False
        if not (is_standard(conv) and conv.op_type in _FOLDABLE):
            return False

        if not self._gives_plain_channels(conv):
            return False

        attributes = {attribute.name: attribute for attribute in norm.attribute}
        in_training = "training_mode" in attributes and attributes["training_mode"].i
        constants = [*norm.input[1:], *filter(None, conv.input[1:])]
        weight = conv.input[_weight_of(conv).place]
        return (
            not in_training
            and len(norm.output) == 1
            and self.index.reads[norm.input[0]] == 1
            and self.index.reads[weight] == 1
            and all(name in self.tensors and _is_float32(self.tensors, name) for name in constants)
            and _counts_outputs(self.tensors[weight], _channel_axis(conv, self.tensors[weight]))
        )

    def _gives_plain_channels(self, layer: onnx.NodeProto) -> bool:
        """Whether the second axis of the output counts the channels of the weight, and nothing else scales it."""
        match layer.op_type:
            case "ConvTranspose":
                return attribute_of(layer, "group", 1) == 1
            case "Gemm":
                factors = [a.f for a in layer.attribute if a.name in ("alpha", "beta")]
                return all(f == 1.0 for f in factors) and not attribute_of(layer, "transA", 0)
            case "MatMul":
                weight = self.tensors.get(layer.input[1])
                return weight is not None and len(weight.shape) == 2 and self._is_matrix(layer.input[0])
        return True

    def _is_matrix(self, name: str) -> bool:
        """Whether an activation is known to have two axes."""
        while True:
            node = self._hosts.get(name) or self.index.producer(name)
            if node is None:
                return self._n_axes.get(name) == 2
            if not is_standard(node) or node.op_type not in _KEEPING_AXES:
                return is_standard(node) and node.op_type in ("Gemm", "Flatten")
            name = node.input[0]

    def _rounded(self, parameter: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        single = parameter.astype(np.float32)
        return single.astype(np.float16).astype(np.float32) if self._half else single

    def _fold(self, norm: onnx.NodeProto, conv: onnx.NodeProto) -> None:
        found = _weight_of(conv)
        gamma, beta, mean, variance = (self._float64(name) for name in norm.input[1:])
        stored = found.bias_of(conv)
        before = 0.0 if stored is None else self._float64(stored)
        factor, bias = folded(gamma, beta, mean, variance, epsilon=_epsilon_of(norm), bias=before)

        weight = conv.input[found.place]
        axis = _channel_axis(conv, self.tensors[weight])
        self.tensors[weight] = _scaled(self.tensors[weight], self._rounded(factor), axis)
        if conv.op_type == "MatMul":
            conv.op_type, found = "Gemm", _OF_GEMM
        self._give_bias(conv, found, self._rounded(bias), name=norm.input[2])

    def _give_bias(
        self, conv: onnx.NodeProto, found: WeightInput, bias: npt.NDArray[np.float32], *, name: str
    ) -> None:
        """Store a bias under the name of beta, which is no longer needed unless it serves another node as well."""
        while not self._is_free(name, bias):
            name += ".folded"

        self.tensors[name] = bias
        del conv.input[found.bias :]
        conv.input.append(name)

    def _is_free(self, name: str, bias: npt.NDArray[np.float32]) -> bool:
        if name in self.tensors:
            return np.array_equal(dense_array(self.tensors[name]), bias)
        return name not in self._taken

    def _float64(self, name: str) -> npt.NDArray[np.float64]:
        return np.asarray(dense_array(self.tensors[name]), np.float64)


def _epsilon_of(norm: onnx.NodeProto) -> float:
    return next((a.f for a in norm.attribute if a.name == "epsilon"), _DEFAULT_EPSILON)


def _weight_of(conv: onnx.NodeProto) -> WeightInput:
    """Where a foldable node takes its weight: layers have it in the first place of the table."""
    return next(iter(weight_inputs(conv)))


def _channel_axis(conv: onnx.NodeProto, weight: Tensor) -> int:
    return _weight_of(conv).channel_axis(conv, n_axes=len(weight.shape))


def _is_float32(tensors: Mapping[str, Tensor], name: str) -> bool:
    return spec_of(tensors, name).onnx_type == onnx.TensorProto.FLOAT


def _counts_outputs(weight: Tensor, axis: int) -> bool:
    return not isinstance(weight, QuantizedTensor) or weight.channel_axis == axis


def _scaled(weight: Tensor, factor: npt.NDArray[np.float32], axis: int) -> Tensor:
    """The weight times a factor for each output channel."""
    if isinstance(weight, QuantizedTensor):
        before = weight.channel_scale
        return replace(weight, channel_scale=factor if before is None else before * factor)

    return np.asarray(weight, np.float32) * factor.reshape(-1, *[1] * (weight.ndim - 1 - axis))
