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
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from modelpress.export.errors import InputError
from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.initializers import constants
from modelpress.export.graphs.operators import (
    WEIGHTED,
    Layout,
    WeightInput,
    attribute_of,
    is_standard,
    weight_inputs,
)
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
_ALL_INPUTS = frozenset(("Add", "Mul", "Concat"))
_MAX_CONSTANT = 64  # elements of a scalar or a list of axes
# Of weights that ONNX Runtime has integer kernels for: convolutions over one to three axes of space, plain matrices
_AXES_OF_KERNELS: Mapping[Layout, range] = MappingProxyType(
    {Layout.KERNEL: range(3, 6), Layout.MATRIX: range(2, 3)}
)


@dataclass(frozen=True)
class WeightUse:
    """How a node uses its weight.

    Attributes:
        weight: Its name.
        channel_axis: Which of its axes counts the output channels.
        bias: The name of the bias; None without one.
        layout: What its axes are.
    """

    weight: str
    channel_axis: int
    bias: str | None
    layout: Layout


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
        tails: What a node hands on, behind what is merged into it.
        excluded: Nodes that shall stay in float because the user says so.
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
    tails: dict[int, str] = field(default_factory=dict)
    excluded: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    obstacle: str = ""

    def on_integers(self, place: int) -> bool:
        """Whether a node reads integers."""
        return place in self.weighted or place in self.arithmetic or place in self.moving

    @property
    def places(self) -> set[int]:
        """All nodes that are part of what runs in integers."""
        return {*self.weighted, *self.arithmetic, *self.moving, *self.merged, *self.bias_adds}


def find_regions(model: QuantizedModel, exclude: Collection[str] = ()) -> Regions:
    """Decide for every node of the main graph; nested graphs stay in float. The reasons are left empty.

    Args:
        model: Graph and weights.
        exclude: What stays in float: operators, and names of nodes or of what they make.

    Raises:
        InputError: Nothing in the graph is called like that.
    """
    return _Finder(model, excluded_nodes(model.graph.graph.node, exclude)).find()


def excluded_nodes(nodes: Sequence[onnx.NodeProto], exclude: Collection[str]) -> set[int]:
    """Places of the nodes that names or operators stand for.

    Raises:
        InputError: A name stands for none.
    """
    called = defaultdict(set)
    for place, node in enumerate(nodes):
        for name in (node.name, node.op_type, *node.output):
            called[name].add(place)

    unknown = [name for name in exclude if not name or name not in called]
    if unknown:
        raise InputError(
            f"no node of the graph is called {unknown[0]!r}, makes it or has this operator; operators are "
            f"{', '.join(sorted({node.op_type for node in nodes}))}"
        )
    return set().union(*(called[name] for name in exclude))


def integer_weight_input(node: onnx.NodeProto) -> WeightInput | None:
    """The input that is the weight of an operator with an integer form; None of other operators."""
    return next((found for found in weight_inputs(node) if found.integer_form), None)


def has_integer_form(node: onnx.NodeProto) -> bool:
    """Whether a node is a Conv, Gemm or MatMul, whatever it has as its weight."""
    return is_standard(node) and any(found.integer_form for found in WEIGHTED.get(node.op_type, ()))


class _Finder:
    """One pass forward for what could run in integers, one backward for what is worth it."""

    def __init__(self, model: QuantizedModel, excluded: set[int]) -> None:
        graph = model.graph.graph
        self.index = GraphIndex.of_model(model.graph)
        self.nodes = self.index.nodes
        self.tensors = model.tensors
        self.constants = constants(model.graph)

        # what enters as float can be quantized, other inputs cannot
        self.float_inputs = {
            value.name
            for value in graph.input
            if value.name not in model.tensors and value.type.tensor_type.elem_type == TensorProto.FLOAT
        }

        self.found = Regions(excluded=excluded)
        self.merged_into: dict[int, int] = {}

    def find(self) -> Regions:
        self._find_weighted()
        self._find_others()
        self._drop_fruitless()
        self._name_activations()
        return self.found

    # Weights

    def _find_weighted(self) -> None:
        nodes = enumerate(self.nodes)
        uses = ((place, self._weight_use(node)) for place, node in nodes if place not in self.found.excluded)
        found = {place: use for place, use in uses if use is not None}

        axes = defaultdict(set)
        for use in found.values():
            axes[use.weight].add(use.channel_axis)

        for place, use in found.items():
            if len(axes[use.weight]) == 1:
                self.found.weighted[place] = self._with_added_bias(place, use)

    def _weight_use(self, node: onnx.NodeProto) -> WeightUse | None:
        """The weight of a node that computes in integers; None if it cannot."""
        found = integer_weight_input(node)
        if found is None or node.input[0] in self.tensors or node.input[0] in self.constants:
            return None

        weight = node.input[found.place]
        if weight not in self.tensors:
            return None

        spec = spec_of(self.tensors, weight)
        axis = _channel_axis(node, found, len(spec.shape))
        if spec.onnx_type != TensorProto.FLOAT or not spec.size or axis is None:
            return None

        bias = found.bias_of(node)
        if bias is not None and self._constant_vector(bias, spec.shape[axis]) is None:
            return None
        return WeightUse(weight, axis, bias, found.layout)

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
        reader = self.index.only_reader(name)
        return reader if reader is not None and is_standard(self.nodes[reader]) else None

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
            if place in self.found.merged or place in self.found.bias_adds or place in self.found.excluded:
                continue

            if place in self.found.weighted:
                integers.add(self._tail(place))
                continue

            activations = activations_of(node)
            if not (is_standard(node) and activations and integers.issuperset(activations)):
                continue

            if node.op_type in ARITHMETIC and self._is_plain(node):
                self.found.arithmetic.add(place)
                integers.add(self._tail(place))
            elif node.op_type in MOVING and self._moves_only(node):
                self.found.moving.add(place)
                integers.add(node.output[0])

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

        self.found.tails[place] = output
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
            if place in self.found.arithmetic and not self._feeds_integers(self.found.tails[place]):
                self.found.arithmetic.discard(place)
                self._unmerge(place)
            elif place in self.found.moving and not self._feeds_integers(self.nodes[place].output[0]):
                self.found.moving.discard(place)

    def _feeds_integers(self, name: str) -> bool:
        return any(self.found.on_integers(place) for place in self.index.consumers.get(name, ()))

    def _name_activations(self) -> None:
        """Every input of an integer node, and every output that an integer kernel must make."""
        found = self.found
        names: dict[str, None] = {}
        for place, node in enumerate(self.nodes):
            if place in found.moving:
                source = node.input[0]
                found.moved[node.output[0]] = found.moved.get(source, source)

            if found.on_integers(place):
                inputs = node.input[:1] if place in found.weighted else activations_of(node)
                names.update(dict.fromkeys(name for name in inputs if name not in found.moved))

            if place in found.arithmetic or (place in found.weighted and self._needs_integers_behind(place)):
                names[self.found.tails[place]] = None

        found.quantized = list(names)

    def _needs_integers_behind(self, place: int) -> bool:
        """Whether the kernel of a node with weights must give integers; matrix products can give floats.

        Not so before an activation function: ONNX Runtime would merge the two into one float kernel.
        """
        if self.found.weighted[place].layout is Layout.KERNEL or place in self.merged_into:
            return True

        reader = self._only_reader(self.found.tails[place])
        return reader is not None and self.nodes[reader].op_type in _MERGED_INTO_GEMM


def activations_of(node: onnx.NodeProto) -> list[str]:
    """The inputs of an arithmetic or moving node that are activations; the others take one, then constants."""
    return list(node.input) if node.op_type in _ALL_INPUTS else list(node.input[:1])


def _channel_axis(node: onnx.NodeProto, found: WeightInput, n_axes: int) -> int | None:
    """The axis of a weight that counts output channels; None for forms that have no integer kernel."""
    if n_axes not in _AXES_OF_KERNELS[found.layout]:
        return None

    values = {a.name: a for a in node.attribute}
    factors = [values[key].f for key in ("alpha", "beta") if key in values]
    if attribute_of(node, "transA", 0) or any(factor != 1 for factor in factors):
        return None

    return found.channel_axis(node, n_axes=n_axes)
