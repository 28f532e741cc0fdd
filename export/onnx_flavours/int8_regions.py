"""Which nodes of a graph can compute in integers, and which activations need eight bits for that.

Three kinds of nodes do:

    weighted     Conv, Gemm and MatMul with a constant float32 weight: ONNX Runtime has integer kernels
    arithmetic   Add, Mul, pools, Concat, activations: between a DequantizeLinear and a QuantizeLinear they become
                 integer kernels, on inputs that are integers anyway
    moving       Slice, Pad, MaxPool, Reshape, ...: values stay what they are, so the node runs on the integers

A Relu or Clip after a node becomes part of it: the integers' range does the clipping. Everything else, and every
node from which no other integer node reads, stays in float.
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from modelpress.export.graphs.initializers import constants
from modelpress.export.graphs.parts import graphs_of
from modelpress.export.lazy_tensors import spec_of
from modelpress.export.quantized import QuantizedModel, dense_array

ARITHMETIC = frozenset(
    ("Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat", "Relu", "Clip", "LeakyRelu", "Sigmoid")
)
MOVING = frozenset(
    ("Flatten", "MaxPool", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze", "Identity")
)
_CLIPPING = frozenset(("Relu", "Clip"))
_MERGED_INTO_GEMM = frozenset(
    (
        "Relu",
        "LeakyRelu",
        "Sigmoid",
        "Tanh",
        "Elu",
        "Selu",
        "HardSigmoid",
        "Softplus",
        "Softsign",
        "ThresholdedRelu",
    )
)
_WEIGHTED = frozenset(("Conv", "Gemm", "MatMul"))
_ALL_INPUTS = frozenset(("Add", "Mul", "Concat"))  # the others take one activation, then constants
_MAX_CONSTANT = 64  # elements of a scalar or a list of axes


@dataclass(frozen=True)
class WeightUse:
    """How a node uses its weight.

    Attributes:
        weight: Its name.
        channel_axis: Which of its axes counts the output channels.
        bias: The name of the bias; None without one.
    """

    weight: str
    channel_axis: int
    bias: str | None


@dataclass
class Regions:
    """What runs in integers; nodes are named by their place in the graph.

    Attributes:
        weighted: Nodes with weights.
        arithmetic: Nodes between DequantizeLinear and QuantizeLinear.
        moving: Nodes on integers.
        bias_adds: Add nodes that give a MatMul its bias, and the place of that MatMul.
        merged: Relu and Clip nodes that are part of the node before them.
        quantized: Activations with a range of their own, in the order of the graph.
        moved: Outputs of moving nodes, and the activation whose range they share.
        notes: What stays in float, and why.
        obstacle: The first of these that is about a Conv, Gemm or MatMul; empty if none is.
    """

    weighted: dict[int, WeightUse] = field(default_factory=dict)
    arithmetic: set[int] = field(default_factory=set)
    moving: set[int] = field(default_factory=set)
    bias_adds: dict[int, int] = field(default_factory=dict)
    merged: set[int] = field(default_factory=set)
    quantized: list[str] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    obstacle: str = ""


def find_regions(model: QuantizedModel) -> Regions:
    """Decide for every node of the main graph; nested graphs stay in float."""
    return _Finder(model).find()


class _Finder:
    """One pass forward for what could run in integers, one backward for what is worth it."""

    def __init__(self, model: QuantizedModel) -> None:
        graph = model.graph.graph
        self.nodes = list(graph.node)
        self.tensors = model.tensors
        self.constants = constants(model.graph)
        self.float_inputs = {
            value.name
            for value in graph.input
            if value.name not in model.tensors and value.type.tensor_type.elem_type == TensorProto.FLOAT
        }
        self.readers: defaultdict[str, list[int]] = defaultdict(list)
        for place, node in enumerate(self.nodes):
            for name in node.input:
                self.readers[name].append(place)
        self.kept = {value.name for value in graph.output}  # names that must keep their value
        for part in [part for _, part in graphs_of(model.graph)][1:]:
            self.kept.update(name for node in part.node for name in node.input)
            self.kept.update(value.name for value in part.output)
        self.found = Regions()
        self.tails: dict[int, str] = {}  # what a node hands on, behind what is merged into it
        self.merged_into: dict[int, int] = {}

    def find(self) -> Regions:
        self._find_weighted()
        self._find_others()
        self._drop_fruitless()
        self._name_activations()
        self._explain()
        return self.found

    # Weights

    def _find_weighted(self) -> None:
        found = {}
        for place, node in enumerate(self.nodes):
            if node.op_type in _WEIGHTED and _is_standard(node):
                use = self._weight_use(node)
                if use is not None:
                    found[place] = use
        axes = defaultdict(set)
        for use in found.values():
            axes[use.weight].add(use.channel_axis)
        for place, use in found.items():
            if len(axes[use.weight]) == 1:
                self.found.weighted[place] = self._with_added_bias(place, use)

    def _weight_use(self, node: onnx.NodeProto) -> WeightUse | None:
        if len(node.input) < 2 or node.input[0] in self.tensors or node.input[0] in self.constants:
            return None
        weight = node.input[1]
        if weight not in self.tensors:
            return None
        spec = spec_of(self.tensors, weight)
        n_axes = len(spec.shape)
        if spec.onnx_type != TensorProto.FLOAT or not spec.size:
            return None
        axis = _channel_axis(node, n_axes)
        if axis is None:
            return None
        bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
        if bias is not None and self._constant_vector(bias, spec.shape[axis]) is None:
            return None
        return WeightUse(weight, axis, bias)

    def _with_added_bias(self, place: int, use: WeightUse) -> WeightUse:
        """Take the Add behind a MatMul for its bias: ONNX Runtime makes one integer kernel of both."""
        node = self.nodes[place]
        reader = self._only_reader(node.output[0])
        if node.op_type != "MatMul" or reader is None or self.nodes[reader].op_type != "Add":
            return use
        width = spec_of(self.tensors, use.weight).shape[use.channel_axis]
        others = [name for name in self.nodes[reader].input if name != node.output[0]]
        if len(others) != 1 or self._constant_vector(others[0], width) is None:
            return use
        self.found.bias_adds[reader] = place
        return replace(use, bias=others[0])

    def _only_reader(self, name: str) -> int | None:
        """The node that alone reads an activation, if there is one."""
        readers = self.readers[name]
        alone = len(readers) == 1 and name not in self.kept and _is_standard(self.nodes[readers[0]])
        return readers[0] if alone else None

    def _constant_vector(self, name: str, n: int) -> npt.NDArray[np.generic] | None:
        """A constant with one value for each of `n` channels, or None."""
        value = self._constant(name, max_elements=n)
        return None if value is None or value.shape != (n,) or value.dtype != np.float32 else value

    def _constant(self, name: str, *, max_elements: int = _MAX_CONSTANT) -> npt.NDArray[np.generic] | None:
        if name in self.constants:
            return self.constants[name]
        if name in self.tensors and spec_of(self.tensors, name).size <= max_elements:
            return dense_array(self.tensors[name])
        return None

    # The others

    def _find_others(self) -> None:
        integers = set(self.float_inputs)
        integers.update(self.nodes[place].input[0] for place in self.found.weighted)
        for place, node in enumerate(self.nodes):
            if place in self.found.merged or place in self.found.bias_adds:
                continue
            if place in self.found.weighted:
                integers.add(self._tail(place))
            elif (
                _is_standard(node)
                and self._activations(node)
                and integers.issuperset(self._activations(node))
            ):
                if node.op_type in ARITHMETIC and self._is_plain(node):
                    self.found.arithmetic.add(place)
                    integers.add(self._tail(place))
                elif node.op_type in MOVING and self._moves_only(node):
                    self.found.moving.add(place)
                    integers.add(node.output[0])

    def _activations(self, node: onnx.NodeProto) -> list[str]:
        return list(node.input) if node.op_type in _ALL_INPUTS else list(node.input[:1])

    def _tail(self, place: int) -> str:
        """The activation that a node hands on: its output, or that of the Relu or Clip behind it."""
        output = self.nodes[place].output[0]
        added = self._only_reader(output)
        if added in self.found.bias_adds:
            output = self.nodes[added].output[0]
        follower = self._only_reader(output)
        if follower is not None and self._is_clipping(self.nodes[follower]):
            self.found.merged.add(follower)
            self.merged_into[place] = follower
            output = self.nodes[follower].output[0]
        self.tails[place] = output
        return output

    def _is_clipping(self, node: onnx.NodeProto) -> bool:
        return node.op_type in _CLIPPING and self._is_plain(node)

    def _unmerge(self, place: int) -> None:
        """Leave the Relu or Clip behind a node alone."""
        if place in self.merged_into:
            self.found.merged.discard(self.merged_into[place])

    def _is_plain(self, node: onnx.NodeProto) -> bool:
        """Whether an arithmetic node has nothing but activations and constants, and nothing unusual."""
        if len(node.output) != 1 or any(a.name == "dilations" for a in node.attribute):
            return False
        if node.op_type in _ALL_INPUTS:
            return len(node.input) > 1 or node.op_type == "Concat"
        return all(not name or self._constant(name) is not None for name in node.input[1:])

    def _moves_only(self, node: onnx.NodeProto) -> bool:
        """Whether the node means the same on integers, whose zero is the zero point."""
        if len([name for name in node.output if name]) != 1:
            return False
        if node.op_type != "Pad":
            return True
        mode = next((a.s for a in node.attribute if a.name == "mode"), b"constant")
        if mode != b"constant" or len(node.input) < 3 or not node.input[2]:
            return True
        value = self._constant(node.input[2])
        return value is not None and not value.any()

    # Backward

    def _drop_fruitless(self) -> None:
        """Keep arithmetic and moving nodes only where an integer node reads what they make."""
        for place in reversed(range(len(self.nodes))):
            if place in self.found.arithmetic and not self._feeds_integers(self.tails[place]):
                self.found.arithmetic.discard(place)
                self._unmerge(place)
            elif place in self.found.moving and not self._feeds_integers(self.nodes[place].output[0]):
                self.found.moving.discard(place)

    def _feeds_integers(self, name: str) -> bool:
        return any(
            place in self.found.weighted or place in self.found.arithmetic or place in self.found.moving
            for place in self.readers[name]
        )

    def _name_activations(self) -> None:
        """Every input of an integer node, and every output that an integer kernel must make."""
        found = self.found
        names: dict[str, None] = {}
        for place, node in enumerate(self.nodes):
            if place in found.moving:
                source = node.input[0]
                found.moved[node.output[0]] = found.moved.get(source, source)
            if place in found.moving or place in found.arithmetic or place in found.weighted:
                inputs = node.input[:1] if place in found.weighted else self._activations(node)
                names.update(dict.fromkeys(name for name in inputs if name not in found.moved))
            if place in found.arithmetic or (place in found.weighted and self._needs_integers_behind(place)):
                names[self.tails[place]] = None
        found.quantized = list(names)

    def _needs_integers_behind(self, place: int) -> bool:
        """Whether the kernel of a node with weights must give integers; matrix products can give floats.

        Not so before an activation function: ONNX Runtime would merge the two into one float kernel.
        """
        if self.nodes[place].op_type == "Conv" or place in self.merged_into:
            return True
        reader = self._only_reader(self.tails[place])
        return reader is not None and self.nodes[reader].op_type in _MERGED_INTO_GEMM

    def _explain(self) -> None:
        found = self.found
        in_integers = {*found.weighted, *found.arithmetic, *found.moving, *found.merged, *found.bias_adds}
        in_float: defaultdict[tuple[str, str], list[onnx.NodeProto]] = defaultdict(list)
        for place, node in enumerate(self.nodes):
            if place not in in_integers and node.op_type != "Constant":
                in_float[_kind(node), self._reason(place, node)].append(node)
            elif place in found.weighted and self.tails[place] in self.kept.intersection(found.quantized):
                found.notes.append(f"{self.tails[place]}: is read as float, but carries eight bits")
        for (kind, reason), nodes in in_float.items():
            title = f"{kind} {_name(nodes[0])} stays"
            if len(nodes) > 1:
                title = f"{len(nodes)} {kind} ({_name(nodes[0])} and others) stay"
            note = f"{title} in float: {reason}"
            found.notes.append(note)
            if kind in _WEIGHTED:
                found.obstacle = found.obstacle or note

    def _reason(self, place: int, node: onnx.NodeProto) -> str:
        if node.op_type == "BatchNormalization":
            return "it could not be folded into a convolution; this costs speed"
        if node.op_type in _WEIGHTED and _is_standard(node):
            return self._weight_reason(node)
        if not _is_standard(node) or node.op_type not in ARITHMETIC | MOVING:
            return "there is no integer kernel for it here"
        if not self._feeds_integers(node.output[0]):
            return "no integer node reads what it makes"
        return "not all that it reads is integer, or constant"

    def _weight_reason(self, node: onnx.NodeProto) -> str:
        name = node.input[1] if len(node.input) > 1 else ""
        if name not in self.tensors or node.input[0] in self.tensors:
            return "not its second input, but another one or none, is a constant weight"
        if spec_of(self.tensors, name).onnx_type != TensorProto.FLOAT:
            return "its weight is not float32"
        return "its weight is shared along another axis, or factors, a transposition or the bias are unusual"


def _channel_axis(node: onnx.NodeProto, n_axes: int) -> int | None:
    """The axis of a weight that counts output channels; None for forms that have no integer kernel."""
    values = {a.name: a for a in node.attribute}
    match node.op_type:
        case "Conv":
            return 0 if 3 <= n_axes <= 5 else None
        case "Gemm":
            factors = [values[key].f for key in ("alpha", "beta") if key in values]
            transposed = "transA" in values and values["transA"].i
            if transposed or any(factor != 1 for factor in factors):
                return None
            return 0 if "transB" in values and values["transB"].i else 1
    return 1 if n_axes == 2 else None


def _is_standard(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx")


def _kind(node: onnx.NodeProto) -> str:
    return node.op_type if _is_standard(node) else f"{node.domain}:{node.op_type}"


def _name(node: onnx.NodeProto) -> str:
    return node.name or ", ".join(node.output)
