"""Why an operator of a quantized model does not compute on integers, or computes slowly, or wrongly."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from modelpress.benchmarks.audits.optimised_graph import Fate
from modelpress.benchmarks.subjects.running_weights import constant_tensors
from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.operators import WeightInput, attribute_of, layer_weight_inputs

_ACTIVATIONS = ("Relu", "Clip")
_WITH_INTEGER_FORM = frozenset(
    {"Conv", "Gemm", "MatMul", "Add", "Mul", "AveragePool", "GlobalAveragePool", "MaxPool", "Concat"}
    | {"LeakyRelu", "Sigmoid", "Softmax", "Where", "Relu", "Clip"}
)
_LEAST: dict[int, int] = {TensorProto.INT8: -(2**7), TensorProto.INT16: -(2**15)}
_EIGHT_BITS = (TensorProto.INT8, TensorProto.UINT8)


class Obstacle(NamedTuple):
    """A reason, and what to do about it."""

    reason: str
    remedy: str


class Quantization(NamedTuple):
    """How a tensor was quantized, as far as the file tells."""

    onnx_type: int
    scale: npt.NDArray[np.generic] | None
    zero_point: npt.NDArray[np.generic] | None
    axis: int


class Diagnosis:
    """Looks at the surroundings of one node in the file.

    Args:
        index: The graph as emitted.
        tensors: Values of scales and zero points by name.
    """

    def __init__(self, index: GraphIndex, tensors: dict[str, npt.NDArray[np.generic]]) -> None:
        self.index, self.tensors = index, tensors
        self.constant = index.constants()

    def of(self, node: onnx.NodeProto, fate: Fate) -> Obstacle | None:
        """The first thing that is wrong; None if nothing is known to be."""
        obstacles = self._when_integer(node) if fate.integer else self._when_float(node)
        return next(obstacles, None)

    def _when_integer(self, node: onnx.NodeProto) -> Iterator[Obstacle]:
        """It fused, but it is wrong or slow."""
        weight = self._weight(node)
        if weight is None and self._weight_place(node) is not None:
            yield Obstacle(
                "its weight is float in the file: ONNX Runtime rounds it to 8 bits at load",
                "store it as int8 codes and a DequantizeLinear, so that the file holds what runs",
            )

        if weight is not None:
            yield from self._axis(node, weight, fused=True)
            if weight.onnx_type == TensorProto.UINT8:
                yield Obstacle(
                    "weights are uint8: no faster than float on x86",
                    "store weights as int8 with zero point 0",
                )
            if weight.zero_point is not None and np.any(weight.zero_point):
                yield Obstacle(
                    "the zero point of the weights is not 0: 1.5 times slower than with 0",
                    "use symmetric int8 weights",
                )

        quantize = self._only_user(node.output[0], "QuantizeLinear")
        dequantize = quantize and self._only_user(quantize.output[0], "DequantizeLinear")
        late = dequantize and self._only_user(dequantize.output[0], *_ACTIVATIONS)
        if late:
            yield Obstacle(
                f"QuantizeLinear comes before {late.op_type}: a DequantizeLinear stays between",
                f"put QuantizeLinear after {late.op_type}, with the zero point at the least integer",
            )

    def _when_float(self, node: onnx.NodeProto) -> Iterator[Obstacle]:
        if node.op_type == "ReduceMean":
            yield Obstacle("ReduceMean has no integer form", "emit GlobalAveragePool and Flatten")

        if node.op_type == "BatchNormalization":
            yield Obstacle(
                "batch norm is left in the graph", "fold it into the convolution before quantizing"
            )

        if node.op_type not in _WITH_INTEGER_FORM:
            yield Obstacle(f"ONNX Runtime has no integer form of {node.op_type}", "")

        if layer_weight_inputs(node):
            yield from self._weight_obstacles(node)

        yield from self._input_obstacles(node)
        yield from self._output_obstacles(node)
        yield Obstacle("ONNX Runtime did not fuse it, for a reason this audit does not know", "")

    def _weight_obstacles(self, node: onnx.NodeProto) -> Iterator[Obstacle]:
        place = self._weight_place(node)
        weight = self._weight(node)
        if place is None:
            return
        if weight is None:
            yield Obstacle("the weight is not quantized", "store it as int8 codes and a DequantizeLinear")
            return

        if weight.onnx_type not in _EIGHT_BITS:
            kind = TensorProto.DataType.Name(weight.onnx_type)
            yield Obstacle(
                f"no integer kernel takes {kind} weights: they are dequantized at every inference",
                "expand the codes to int8 (Cast, Sub) before DequantizeLinear: folded at load, then fused",
            )

        yield from self._axis(node, weight, fused=False)

    def _axis(self, node: onnx.NodeProto, weight: Quantization, *, fused: bool) -> Iterator[Obstacle]:
        """Scales per channel belong to output channels; the integer kernels do not look at the axis."""
        if weight.scale is None or weight.scale.size < 2 or np.ptp(weight.scale.astype(np.float64)) == 0:
            return

        right = self._channel_axis(node)
        if weight.axis >= 0 and weight.axis != right:
            consequence = "; the integer kernel takes them as those of output channels: wrong results"
            yield Obstacle(
                f"scales of the weight run along axis {weight.axis}{consequence if fused else ''}",
                f"make them per output channel, axis {right}",
            )

    def _input_obstacles(self, node: onnx.NodeProto) -> Iterator[Obstacle]:
        weight = self._weight_place(node)
        weight_place = None if weight is None else weight.place
        places = range(2) if layer_weight_inputs(node) else range(len(node.input))
        for name in [node.input[k] for k in places if k != weight_place and k < len(node.input)]:
            if not name or (node.op_type == "Clip" and name != node.input[0]):
                continue

            found = self._quantization(name)
            if found is None:
                yield Obstacle(
                    "an input of it is not quantized", "put QuantizeLinear and DequantizeLinear before it"
                )
            elif found.onnx_type not in _EIGHT_BITS:
                yield Obstacle("activations have more than 8 bits", "quantize activations to uint8")
            elif found.scale is not None and found.scale.shape == (1,):
                yield Obstacle("the scale of an activation has shape [1]", "store it with shape []")

    def _output_obstacles(self, node: onnx.NodeProto) -> Iterator[Obstacle]:
        name, last = node.output[0], node
        users = self.index.users(name)
        if len(users) == 1 and users[0].op_type in _ACTIVATIONS and name not in self.index.outputs:
            last = users[0]
            name, users = last.output[0], self.index.users(last.output[0])

        where = f" after {last.op_type}" if last is not node else ""

        if len(users) == 1 and users[0].op_type == "BatchNormalization":
            yield Obstacle(
                f"batch norm stands between {last.op_type} and QuantizeLinear",
                "fold it into the convolution before quantizing",
            )

        if name in self.index.outputs or any(u.op_type != "QuantizeLinear" for u in users) or not users:
            if (
                node.op_type not in ("Gemm", "MatMul") or last is not node
            ):  # these have kernels with float results
                yield Obstacle(
                    f"its output is not quantized{where}",
                    f"put QuantizeLinear and DequantizeLinear{where or ' after it'}, "
                    "and let all its users take that",
                )
            return

        yield from self._absorption(last, users[0], where)

    def _absorption(self, last: onnx.NodeProto, quantize: onnx.NodeProto, where: str) -> Iterator[Obstacle]:
        """An activation vanishes only where quantizing clips at least as much."""
        found = self._quantization_by(quantize)
        kind = TensorProto.DataType.Name(found.onnx_type).lower()
        if where and last.op_type == "Relu" and not _begins_at_zero(found):
            yield Obstacle(
                f"Relu is kept: {kind} after it reaches below 0",
                "quantize to uint8 with zero point 0 after Relu",
            )

        if where and last.op_type == "Clip":
            yield Obstacle(
                "Clip is kept: the quantized range is wider than its bounds",
                "let the quantized range end at the bounds of Clip, or use Relu",
            )

        if found.onnx_type == TensorProto.INT8:
            yield Obstacle(
                "activations are int8: on x86 they fuse partly, and run slower than uint8",
                "quantize activations to uint8",
            )

    def _weight_place(self, node: onnx.NodeProto) -> WeightInput | None:
        """The input that is a constant weight, if there is one."""
        found = layer_weight_inputs(node)
        return next((weight for weight in found if node.input[weight.place] in self.constant), None)

    def _channel_axis(self, node: onnx.NodeProto) -> int | None:
        """The axis of a node's weight that counts its output channels."""
        place = self._weight_place(node)
        return (
            None if place is None else place.channel_axis(node, n_axes=self._n_axes(node.input[place.place]))
        )

    def _n_axes(self, name: str) -> int:
        """Of the codes that a DequantizeLinear makes a weight from; of computed ones unknown, and mostly two."""
        maker = self.index.producer(name)
        codes = name if maker is None else maker.input[0]
        return len(self.index.stored[codes].dims) if codes in self.index.stored else 2

    def _weight(self, node: onnx.NodeProto) -> Quantization | None:
        place = self._weight_place(node)
        return None if place is None else self._quantization(node.input[place.place])

    def _quantization(self, name: str) -> Quantization | None:
        node = self.index.producer(name)
        if node is None or node.op_type != "DequantizeLinear":
            return None
        return self._quantization_by(node)

    def _quantization_by(self, node: onnx.NodeProto) -> Quantization:
        """Of a QuantizeLinear or DequantizeLinear."""
        zero_point = node.input[2] if len(node.input) > 2 else ""
        names = (zero_point, node.input[0]) if node.op_type == "DequantizeLinear" else (zero_point,)

        kind = next((kind for name in names if (kind := self._type_of(name))), None)
        if kind is None:
            before = self.index.producer(node.input[0])
            if node.op_type == "DequantizeLinear" and before and before.op_type == "QuantizeLinear":
                return self._quantization_by(before)
            kind = attribute_of(node, "output_dtype", 0) or TensorProto.UINT8  # the format's default

        return Quantization(
            kind, self.tensors.get(node.input[1]), self.tensors.get(zero_point), attribute_of(node, "axis", 1)
        )

    def _type_of(self, name: str) -> int | None:
        if name in self.index.stored:
            return int(self.index.stored[name].data_type)
        if name in self.tensors:
            return int(onnx.helper.np_dtype_to_tensor_dtype(self.tensors[name].dtype))
        return None

    def _only_user(self, name: str, *op_types: str) -> onnx.NodeProto | None:
        users = self.index.users(name)
        return users[0] if len(users) == 1 and users[0].op_type in op_types else None


def _begins_at_zero(found: Quantization) -> bool:
    least = _LEAST.get(found.onnx_type, 0)
    return bool(np.all(found.zero_point == least)) if found.zero_point is not None else least == 0


def quantization_parameters(model: onnx.ModelProto, index: GraphIndex) -> dict[str, npt.NDArray[np.generic]]:
    """Scales and zero points of a model by name, and codes of weights that only a computation tells the type of."""
    known = index.constants()
    names: list[str] = []
    for node in index.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            names += [name for name in node.input[1:] if name in known]
            if len(node.input) < 3 and node.input[0] in known:
                names.append(node.input[0])

    return constant_tensors(model, names, index=index)
