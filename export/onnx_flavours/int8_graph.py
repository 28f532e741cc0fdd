"""Write QuantizeLinear and DequantizeLinear nodes around what runs in integers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from modelpress.export.errors import ModelError
from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.initializers import constants
from modelpress.export.graphs.operators import Layout
from modelpress.export.graphs.parts import names_in
from modelpress.export.lazy_tensors import spec_of
from modelpress.export.onnx_flavours.int8_regions import Regions, WeightUse
from modelpress.export.onnx_flavours.int8_weights import Int8Weight, SearchedWeight
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, dense_array

Range = tuple[float, float]
_LEVELS = 255  # steps of an unsigned byte
_SMALLEST_UNIT = float(np.finfo(np.float32).tiny)  # of biases: smaller products are 0 in float32
_BIAS_LIMIT = 2.0**30  # half of int32 is left to the sums of products
_SEPARATE_WEIGHTS_IR = 4
_SMALLEST_SPAN = 2.0**-80


@dataclass(frozen=True)
class Steps:
    """Affine uint8 quantization of an activation: ``value = (code - zero_point) * scale``."""

    scale: np.float32
    zero_point: np.uint8


def steps_of(low: float, high: float) -> Steps:
    """Scale and zero point that cover a range holding 0; 0 is exact.

    Example:
        >>> steps_of(0.0, 2.55), steps_of(-1.0, 1.0).zero_point
        (Steps(scale=np.float32(0.01), zero_point=np.uint8(0)), np.uint8(128))
    """
    span = high - low if high - low > _SMALLEST_SPAN else 1.0  # of one that is always zero, any step does
    scale = np.float32(span / _LEVELS)
    if float(scale) * _LEVELS > span:  # a Clip to this very range is merged only if no code lies outside it
        scale = np.nextafter(scale, np.float32(0))
    return Steps(scale, np.uint8(np.rint(-low / span * _LEVELS)))


def range_of(steps: Steps) -> Range:
    """The range that gives these very steps.

    Example:
        >>> steps_of(*range_of(steps_of(-0.3, 1.7))) == steps_of(-0.3, 1.7)
        True
    """
    scale, zero_point = float(steps.scale), int(steps.zero_point)
    return -zero_point * scale, (_LEVELS - zero_point) * scale


def searched_weights(model: QuantizedModel, regions: Regions, *, limit: int) -> dict[str, SearchedWeight]:
    """Every weight that integer nodes read, by its name.

    Raises:
        ModelError: One is not finite.
    """
    found: dict[str, SearchedWeight] = {}
    for use in regions.weighted.values():
        if use.weight in found:
            continue

        source = model.tensors[use.weight]
        if not isinstance(source, QuantizedTensor) and not np.isfinite(np.asarray(source, np.float32)).all():
            raise ModelError(f"{use.weight}: the weight holds NaN or infinity")
        found[use.weight] = SearchedWeight.of(source, channel_axis=use.channel_axis, limit=limit)

    return found


class QdqWriter:
    """Turns a graph into one with quantized regions; `nodes`, `weights` and `tensors` hold the result.

    Raises:
        ModelError: A bias is not finite.
    """

    def __init__(
        self,
        model: QuantizedModel,
        regions: Regions,
        ranges: Mapping[str, Range],
        searched: Mapping[str, SearchedWeight],
    ) -> None:
        self.model, self.regions, self.searched = model, regions, searched
        self.index = GraphIndex.of_model(model.graph)

        self.steps = {name: steps_of(*ranges[name]) for name in regions.quantized}
        self.steps |= {name: self.steps[source] for name, source in regions.moved.items()}
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Int8Weight] = {}
        self.tensors: dict[str, npt.NDArray[np.generic]] = {}
        self._taken = set(model.tensors) | names_in(model.graph)
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._codes: dict[str, str] = {}  # activation -> its uint8 tensor
        self._floats: dict[str, str] = {}  # activation -> what integer nodes read, if not its own name
        self._int8_of: dict[str, Int8Weight] = {}  # by the name of the weight it replaces
        self._numbers: Counter[str] = Counter()
        self._least_scales = self._weight_scales()
        self._read_as_float = self._names_read_as_float()

    def write(self) -> onnx.ModelProto:
        """The whole graph, without initializers."""
        # weights and graph inputs first: any node may read them
        integer_made = self._made_by_integers()
        self._write_weights()
        for name in self.steps:
            if name not in self.index.producers:
                self._quantize_aside(name)

        for place, node in enumerate(self.index.nodes):
            self._write_node(place, node, integer_made)

        return self._assembled()

    def codes(self) -> dict[str, tuple[str, str, str]]:
        """The uint8 tensor of each quantized activation, with its scale and zero point."""
        return {name: (code, *self._parameters(self.steps[name])) for name, code in self._codes.items()}

    def _names_read_as_float(self) -> set[str]:
        """Activations that anything but a moving node reads."""
        moving = self.regions.moving
        readers = [node for place, node in enumerate(self.index.nodes) if place not in moving]
        return self.index.kept.union(*(node.input for node in readers))

    def _made_by_integers(self) -> set[str]:
        """Activations that leave an integer kernel or a node merged into one."""
        regions = self.regions
        places = {*regions.weighted, *regions.arithmetic, *regions.merged, *regions.bias_adds}
        return {self.index.nodes[place].output[0] for place in places}

    def _write_node(self, place: int, node: onnx.NodeProto, integer_made: set[str]) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if place in self.regions.moving:
            self._write_moving(copy)
            return

        if place in self.regions.weighted:
            copy.input[0] = self._floats.get(node.input[0], node.input[0])
            self._rename_bias(copy, place)
        elif place in self.regions.bias_adds:
            self._rename_bias(copy, self.regions.bias_adds[place])
        elif place in self.regions.arithmetic:
            for k, name in enumerate(node.input):
                copy.input[k] = self._floats.get(name, name)

        self.nodes.append(copy)
        for k, name in enumerate(node.output):
            if name not in self.steps:
                continue
            if name in integer_made:
                copy.output[k] = self._fresh("f")
                self._quantize(copy.output[k], name)
                if self._is_read_as_float(name):
                    self._dequantize(name, name)
            else:
                self._quantize_aside(name)

    # Activations

    def _quantize_aside(self, name: str) -> None:
        """Quantize a float activation for integer nodes; others go on reading it as it is."""
        self._quantize(name, name)
        readers = self.index.consumers.get(name, ())
        if any(place in self.regions.weighted or place in self.regions.arithmetic for place in readers):
            self._floats[name] = self._fresh("d")
            self._dequantize(name, self._floats[name])

    def _quantize(self, source: str, name: str) -> None:
        self._codes[name] = self._fresh("q")
        inputs = [source, *self._parameters(self.steps[name])]
        self._add("QuantizeLinear", inputs, self._codes[name])

    def _dequantize(self, name: str, output: str) -> None:
        inputs = [self._codes[name], *self._parameters(self.steps[name])]
        self._add("DequantizeLinear", inputs, output)

    def _parameters(self, steps: Steps) -> tuple[str, str]:
        """Scalars, of no axes: ONNX Runtime refuses a list of one. A zero point left out hinders its fusion."""
        return (
            self._constant("s", np.asarray(steps.scale)),
            self._constant("z", np.asarray(steps.zero_point)),
        )

    def _write_moving(self, node: onnx.NodeProto) -> None:
        source, output = node.input[0], node.output[0]
        node.input[0] = self._codes[source]
        if node.op_type == "Pad":
            self._pad_with(node, self.steps[source].zero_point)

        self._codes[output] = node.output[0] = self._fresh("q")
        self.nodes.append(node)
        if self._is_read_as_float(output):
            self._dequantize(output, output)

    def _pad_with(self, node: onnx.NodeProto, zero_point: np.uint8) -> None:
        """Let a Pad fill with what stands for 0: its third input, before the axes."""
        axes = list(node.input[3:])
        del node.input[2:]
        node.input.extend([self._constant("z", np.asarray(zero_point)), *axes])

    def _is_read_as_float(self, name: str) -> bool:
        """Whether anything but moving nodes reads an activation; nothing may be left that nobody reads."""
        return name in self._read_as_float

    # Weights

    def _weight_scales(self) -> dict[str, npt.NDArray[np.float64]]:
        """For every weight the least scales at which no bias overflows, shape ``(out,)``."""
        least: dict[str, npt.NDArray[np.float64]] = {}
        for place, use in self.regions.weighted.items():
            bound = np.zeros(spec_of(self.model.tensors, use.weight).shape[use.channel_axis])
            if use.bias is not None:
                step = float(self.steps[self.index.nodes[place].input[0]].scale)
                bound = np.abs(self._bias(use.bias).astype(np.float64)) / (step * _BIAS_LIMIT)
            least[use.weight] = np.maximum(least.get(use.weight, 0.0), bound)

        return least

    def _bias(self, name: str) -> npt.NDArray[np.generic]:
        stored = name in self.model.tensors
        bias = dense_array(self.model.tensors[name]) if stored else constants(self.model.graph)[name]
        if not np.isfinite(np.asarray(bias, np.float32)).all():
            raise ModelError(f"{name}: the bias holds NaN or infinity")
        return bias

    def _write_weights(self) -> None:
        """Every weight under its own name from an int8 tensor, ahead of all nodes that may read it."""
        for use in self.regions.weighted.values():
            if use.weight in self._int8_of:
                continue

            weight = self.searched[use.weight].int8(self._fresh("w"), self._least_scales[use.weight])
            self._int8_of[use.weight] = weight
            self.weights[weight.name] = weight
            inputs = [weight.name, self._constant("s", weight.scale)]
            if use.layout is Layout.MATRIX:  # matrix products are fused only with a zero point
                inputs.append(self._constant("z", np.zeros(weight.scale.shape, np.int8)))

            self._add("DequantizeLinear", inputs, use.weight, axis=use.channel_axis)

    def _rename_bias(self, node: onnx.NodeProto, weighted: int) -> None:
        """Let a node read the integer form of the bias of a node with weights, if that is one of its inputs."""
        use = self.regions.weighted[weighted]
        if use.bias is not None and use.bias in node.input:
            step = self.steps[self.index.nodes[weighted].input[0]].scale
            node.input[list(node.input).index(use.bias)] = self._write_bias(use.bias, use, step)

    def _write_bias(self, name: str, use: WeightUse, input_scale: np.float32) -> str:
        """The bias as int32 in units of weight scale times input scale, which is what the kernels add."""
        weight = self._int8_of[use.weight]
        unit = np.maximum(weight.scale.astype(np.float64) * float(input_scale), _SMALLEST_UNIT)
        codes = np.rint(self._bias(name).astype(np.float64) / unit).astype(np.int32)
        # the product as a node would take fewer bytes, but runtimes look for Q/DQ before they fold constants
        scale = self._constant("s", weight.scale * input_scale)
        return self._add("DequantizeLinear", [self._constant("b", codes), scale], self._fresh("c"), axis=0)

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    # The rest

    def _constant(self, prefix: str, value: npt.NDArray[np.generic]) -> str:
        """One initializer for all uses of a value."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._shared:
            self._shared[key] = self._fresh(prefix)
            self.tensors[self._shared[key]] = value
        return self._shared[key]

    def _fresh(self, prefix: str) -> str:
        """A short name that nothing has."""
        while True:
            name = f"{prefix}{self._numbers[prefix]}"
            self._numbers[prefix] += 1
            if name not in self._taken:
                return name

    def _assembled(self) -> onnx.ModelProto:
        """The graph with the new nodes; what was a weight is no input any more."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model.graph)
        inputs = [value for value in self.model.graph.graph.input if value.name not in self.model.tensors]
        del model.graph.node[:], model.graph.input[:]
        model.graph.input.extend(inputs)
        model.graph.node.extend(self.nodes)
        model.ir_version = max(model.ir_version, _SEPARATE_WEIGHTS_IR)
        self._forget_shapes(model.graph)

        used = GraphIndex.of_model(model).reads
        self.tensors |= {
            name: dense_array(self.model.tensors[name])
            for name in self.model.tensors
            if name in used and name not in self._int8_of
        }
        return model

    @staticmethod
    def _forget_shapes(graph: onnx.GraphProto) -> None:
        """Drop what is stated of names that are gone: nodes written later may take them for something else."""
        made = {name for node in graph.node for name in node.output}
        stated = [value for value in graph.value_info if value.name in made]
        if len(stated) < len(graph.value_info):
            stated = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in stated]
            del graph.value_info[:]
            graph.value_info.extend(stated)
