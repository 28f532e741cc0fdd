"""The ONNX graph without its weights: built layer by layer, split from and joined with initializers."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelpress.export.errors import InputError, ModelError
from modelpress.export.quantized import QuantizedModel, Tensor

# Opset 13 with IR version 8 loads in every onnxruntime since 1.15.
OPSET, IR_VERSION = 13, 8
INPUT, OUTPUT = "images", "logits"


@dataclass
class GraphBuilder:
    """Emits one node per call and remembers the tensors that nodes use.

    Every method takes and returns the names of activations; the batch axis is dynamic.

    Example:
        >>> builder = GraphBuilder("tiny", input_shape=(1, 4, 4))
        >>> w, b = np.ones((2, 1, 3, 3), np.float32), np.zeros(2, np.float32)
        >>> x = builder.relu(builder.conv("conv", INPUT, w, b, stride=1, padding=1))
        >>> model = builder.finish(x, n_outputs=2, metadata={})
        >>> [node.op_type for node in model.graph.graph.node], list(model.tensors)
        (['Conv', 'Relu'], ['conv.weight', 'conv.bias'])
    """

    name: str
    input_shape: tuple[int, ...]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def conv(
        self, layer: str, x: str, weight: Tensor, bias: npt.NDArray[np.float32], *, stride: int, padding: int
    ) -> str:
        """2-d convolution with bias; `weight` has shape ``(out, in, kh, kw)``."""
        weights = self._parameters(layer, weight, bias)
        return self._node(
            "Conv", [x, *weights], kernel_shape=weight.shape[2:], strides=[stride] * 2, pads=[padding] * 4
        )

    def gemm(self, layer: str, x: str, weight: Tensor, bias: npt.NDArray[np.float32]) -> str:
        """Linear layer ``x @ weight.T + bias``; `weight` has shape ``(out, in)``."""
        return self._node("Gemm", [x, *self._parameters(layer, weight, bias)], transB=1)

    def relu(self, x: str) -> str:
        """Rectifier."""
        return self._node("Relu", [x])

    def add(self, left: str, right: str) -> str:
        """Sum of two activations."""
        return self._node("Add", [left, right])

    def subsample(self, x: str, *, stride: int) -> str:
        """Every `stride`-th pixel in both directions of an ``(N, C, H, W)`` activation."""
        bounds = {"starts": [0, 0], "ends": [2**31 - 1] * 2, "axes": [2, 3], "steps": [stride] * 2}
        names = [self._shared(f"subsample{stride}.{key}", value) for key, value in bounds.items()]
        return self._node("Slice", [x, *names])

    def pad_channels(self, x: str, *, before: int, after: int) -> str:
        """Zero channels before and after those of an ``(N, C, H, W)`` activation."""
        pads = self._shared(f"pad{before}+{after}", [0, before, 0, 0, 0, after, 0, 0])
        return self._node("Pad", [x, pads], mode="constant")

    def global_average_pool(self, x: str) -> str:
        """Mean over space, to ``(N, C, 1, 1)``."""
        return self._node("GlobalAveragePool", [x])

    def flatten(self, x: str) -> str:
        """All axes but the batch as one."""
        return self._node("Flatten", [x], axis=1)

    def finish(self, x: str, *, n_outputs: int, metadata: dict[str, str]) -> QuantizedModel:
        """Name the output and wrap up; `metadata` becomes the model's ``metadata_props``."""
        self.nodes[-1].output[0] = OUTPUT
        if x != f"a{len(self.nodes) - 1}":
            raise ModelError("the graph's output must come from its last node")
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", *self.input_shape])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", n_outputs])],
        )
        model = helper.make_model(
            graph,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="modelpress",
        )
        helper.set_model_props(model, dict(sorted(metadata.items())))
        return QuantizedModel(model, self.tensors)

    def _node(self, op: str, inputs: list[str], **attributes: Any) -> str:
        output = f"a{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def _parameters(self, layer: str, weight: Tensor, bias: npt.NDArray[np.float32]) -> list[str]:
        names = [f"{layer}.weight", f"{layer}.bias"]
        for name, tensor in zip(names, (weight, bias), strict=True):
            if name in self.tensors:
                raise ModelError(f"{name}: two tensors have this name")
            self.tensors[name] = tensor
        return names

    def _shared(self, name: str, values: list[int]) -> str:
        self.tensors[name] = np.array(values, np.int64)
        return name


def with_initializers(graph: onnx.ModelProto, arrays: dict[str, npt.NDArray[np.generic]]) -> onnx.ModelProto:
    """A copy of `graph` that holds these arrays as initializers, stored as raw data."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        for name, array in arrays.items()
    )
    return model


def check_self_contained(graph: onnx.ModelProto) -> None:
    """Refuse a graph that holds weights of its own or would read other files, at any depth.

    Raises:
        ModelError: There are initializers, sparse initializers, data outside the file, or text that is no UTF-8.
    """
    for name, part in graphs_of(graph):
        if len(part.initializer) or len(part.sparse_initializer):
            raise ModelError(f"{name} still holds initializers; they belong into the tensors")
    for tensor in _tensors_of(graph):
        if tensor.data_location == TensorProto.EXTERNAL or len(tensor.external_data):
            raise ModelError("a constant lies in another file; a model must be complete in itself")
    for entry in graph.metadata_props:
        if not isinstance(entry.key, str) or not isinstance(entry.value, str):
            raise ModelError("metadata is no UTF-8 text")


def has_external_data(model: onnx.ModelProto) -> bool:
    """Whether any tensor of the model, sparse ones included, lies in another file."""
    stored: list[onnx.TensorProto] = []
    for _, part in graphs_of(model):
        stored += part.initializer
        for sparse in part.sparse_initializer:
            stored += (sparse.values, sparse.indices)
    return any(t.data_location == TensorProto.EXTERNAL for t in (*stored, *_tensors_of(model)))


def _attributes_of(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.AttributeProto]]:
    """All attributes, of functions, of training graphs and of every nested graph too, with whose they are."""
    pending = [(function.name, value) for function in model.functions for value in function.attribute_proto]
    holders: list[onnx.GraphProto | onnx.FunctionProto] = [*_training_graphs(model), *model.functions]
    for holder in (model.graph, *holders):
        pending += _attributes_in(holder)
    while pending:
        owner, attribute = pending.pop()
        yield owner, attribute
        for part in _graphs_in(attribute):
            pending += _attributes_in(part)


def _training_graphs(model: onnx.ModelProto) -> list[onnx.GraphProto]:
    return [part for info in model.training_info for part in (info.initialization, info.algorithm)]


def _attributes_in(part: onnx.GraphProto | onnx.FunctionProto) -> list[tuple[str, onnx.AttributeProto]]:
    return [(node.op_type, attribute) for node in part.node for attribute in node.attribute]


def _graphs_in(attribute: onnx.AttributeProto) -> Iterator[onnx.GraphProto]:
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def graphs_of(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """The main graph, then every other graph of the model, each with words for messages."""
    yield "the graph", model.graph
    for part in _training_graphs(model):
        yield "a training graph", part
    for owner, attribute in _attributes_of(model):
        for part in _graphs_in(attribute):
            yield f"a graph inside {owner}", part


def _tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Tensors in attributes."""
    for _, attribute in _attributes_of(model):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for part in (*sparse, *attribute.sparse_tensors):
            yield from (part.values, part.indices)


def initializers(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.generic]]:
    """Every initializer of a model as an array, in file order.

    Raises:
        InputError: Its data are damaged or lie in another file.
    """
    return {tensor.name: _array(tensor.name, tensor) for tensor in model.graph.initializer}


def constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.generic]]:
    """The value of every `Constant` node of the main graph, by output name.

    Raises:
        InputError: As for `initializers`.
    """
    return {
        node.output[0]: _array(node.output[0], attribute.t)
        for node in model.graph.node
        if node.op_type == "Constant" and len(node.output) == 1
        for attribute in node.attribute
        if attribute.name == "value"
    }


def _array(name: str, tensor: onnx.TensorProto) -> npt.NDArray[np.generic]:
    if tensor.data_location == TensorProto.EXTERNAL:
        raise InputError(
            f"{name}: its data lie in another file, which is not followed; store the model in one file"
        )
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:  # onnx raises whatever its parts raise on damaged data
        raise InputError(f"{name}: tensor data are damaged: {error}") from error


def names_in(model: onnx.ModelProto) -> set[str]:
    """All names of activations and tensors, those of nested graphs included."""
    names: set[str] = set()
    for _, part in graphs_of(model):
        names.update(value.name for value in (*part.input, *part.output))
        names.update(tensor.name for tensor in part.initializer)
        for node in part.node:
            names.update((*node.input, *node.output))
    return names


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operators that a model uses; 0 where it names none."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def metadata(graph: onnx.ModelProto) -> dict[str, str]:
    """The model's ``metadata_props``."""
    return {entry.key: entry.value for entry in graph.metadata_props}
