"""A small ONNX graph and its weights, built layer by layer."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from modelpress.export.errors import ModelError
from modelpress.export.graphs.conventions import INPUT, IR_VERSION, OPSET, OUTPUT
from modelpress.export.quantized import QuantizedModel, Tensor


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
