"""The four networks of the tiny benchmark, with random weights: sizes and speeds are theirs, answers are not.

Source: Banbury et al. 2021, "MLPerf Tiny Benchmark", arXiv:2106.07597. Batch norm is folded into the weights.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from modelpress.export.post_training.rounding import PostTraining, quantize_weight
from modelpress.export.quantized import QuantizedModel, Tensor

_OPSET, _IR = 17, 8
_BIAS = 0.2


class _Net:
    """Nodes and weights, layer by layer; names count on."""

    def __init__(self, shape: tuple[int, ...], options: PostTraining) -> None:
        self.shape, self.options = shape, options
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, Tensor] = {}

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def _weights(self, shape: tuple[int, ...]) -> list[str]:
        name = f"layer{len(self.nodes)}"
        values = self.rng.standard_normal(shape) * np.sqrt(
            2 / np.prod(shape[1:]) / (1 - self.options.sparsity)
        )
        self.tensors[f"{name}.weight"] = quantize_weight(
            values.astype(np.float32), self.options, channel_axis=None
        )
        self.tensors[f"{name}.bias"] = (self.rng.standard_normal(shape[0]) * _BIAS).astype(np.float32)
        return [f"{name}.weight", f"{name}.bias"]

    def conv(
        self, x: str, shape: tuple[int, ...], stride: int = 1, pads: tuple[int, int] = (1, 1), **more: Any
    ) -> str:
        """Without a rectifier."""
        names = self._weights(shape)
        return self.add("Conv", x, *names, strides=[stride] * 2, pads=[*pads, *pads], **more)

    def relu(self, x: str) -> str:
        return self.add("Relu", x)

    def separable(self, x: str, read: int, made: int, stride: int = 1) -> str:
        """A depthwise convolution, then one of single pixels."""
        x = self.relu(self.conv(x, (read, 1, 3, 3), stride, group=read))
        return self.relu(self.conv(x, (made, read, 1, 1), pads=(0, 0)))

    def linear(self, x: str, made: int, read: int) -> str:
        return self.add("Gemm", x, *self._weights((made, read)), transB=1)

    def finish(self) -> QuantizedModel:
        graph = helper.make_graph(
            self.nodes,
            "tiny",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *self.shape])],
            [helper.make_tensor_value_info(self.nodes[-1].output[0], TensorProto.FLOAT, None)],
        )
        model = helper.make_model(graph, ir_version=_IR, opset_imports=[helper.make_opsetid("", _OPSET)])
        return QuantizedModel(model, self.tensors)


def _resnet8(options: PostTraining) -> QuantizedModel:
    net = _Net((3, 32, 32), options)
    x = net.relu(net.conv("x", (16, 3, 3, 3)))
    for read, made, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2)):
        inner = net.relu(net.conv(x, (made, read, 3, 3), stride))
        inner = net.conv(inner, (made, made, 3, 3))
        around = x if stride == 1 else net.conv(x, (made, read, 1, 1), stride, pads=(0, 0))
        x = net.relu(net.add("Add", inner, around))
    net.linear(net.add("Flatten", net.add("GlobalAveragePool", x)), 10, 64)
    return net.finish()


def _ds_cnn(options: PostTraining) -> QuantizedModel:
    net = _Net((1, 49, 10), options)
    x = net.relu(net.conv("x", (64, 1, 10, 4), 2, pads=(4, 1)))
    for _ in range(4):
        x = net.separable(x, 64, 64)
    net.linear(net.add("Flatten", net.add("GlobalAveragePool", x)), 12, 64)
    return net.finish()


def _mobilenet(options: PostTraining) -> QuantizedModel:
    net = _Net((3, 96, 96), options)
    x, read = net.relu(net.conv("x", (8, 3, 3, 3), 2)), 8
    steps = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *((128, 1),) * 5, (256, 2), (256, 1))
    for made, stride in steps:
        x, read = net.separable(x, read, made, stride), made
    net.linear(net.add("Flatten", net.add("GlobalAveragePool", x)), 2, 256)
    return net.finish()


def _autoencoder(options: PostTraining) -> QuantizedModel:
    net, x, widths = _Net((640,), options), "x", (640, 128, 128, 128, 128, 8, 128, 128, 128, 128)
    for read, made in pairwise(widths):
        x = net.relu(net.linear(x, made, read))
    net.linear(x, 640, 128)
    return net.finish()


TINY_NETWORKS: Mapping[str, Callable[[PostTraining], QuantizedModel]] = MappingProxyType(
    {
        "ResNet-8": _resnet8,
        "DS-CNN": _ds_cnn,
        "MobileNetV1 0.25 at 96": _mobilenet,
        "autoencoder 640": _autoencoder,
    }
)
"""By name; each takes bits and sparsity."""
