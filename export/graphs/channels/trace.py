"""What is known of the channels of each activation while a graph is followed from inputs to outputs."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from modelpress.export.graphs.channels.slots import SlotGroups, Slots
from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.initializers import constants
from modelpress.export.quantized import QuantizedModel, dense_array

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
Edit = Callable[["Alive"], None]
Alive = Callable[[Slots], npt.NDArray[np.bool_]]


class Role(StrEnum):
    """What a tensor does with the channels along one of its axes."""

    MAKES = "makes"  # rows of a weight
    TAKES = "takes"  # its columns
    SHIFTS = "shifts"  # adds to them: a bias; the factor of a normalisation, without which it adds nothing
    FOLLOWS = "follows"  # any other value for each channel


@dataclass(frozen=True)
class Channels:
    """The channels of an activation.

    Attributes:
        axis: Which axis counts them.
        slots: Their numbers in `SlotGroups`; the same number several times where positions in space were laid out.
        known: Which of them have one value, everywhere and for all inputs.
        value: It, where `known`.
    """

    axis: int
    slots: Slots
    known: npt.NDArray[np.bool_]
    value: npt.NDArray[np.float64]

    def take(self, order: Any) -> "Channels":
        """Chosen ones."""
        return Channels(self.axis, self.slots[order], self.known[order], self.value[order])

    def along(self, axis: int) -> "Channels":
        """The same channels, counted by another axis."""
        return Channels(axis, self.slots, self.known, self.value)

    def unknown(self) -> "Channels":
        """The same channels after something that leaves no value constant."""
        return Channels(self.axis, self.slots, np.zeros_like(self.known), self.value)

    def where(self, known: npt.NDArray[np.bool_]) -> "Channels":
        """The same channels, of which fewer are known to be constant."""
        return Channels(self.axis, self.slots, self.known & known, self.value)


@dataclass(frozen=True)
class Claim:
    """A tensor whose axis counts channels; its entries go where they go."""

    tensor: str
    axis: int
    slots: Slots
    role: Role


@dataclass(frozen=True)
class Sink:
    """A layer that sums over the channels it takes.

    Attributes:
        node: Number of the node.
        taken: What it takes.
        made: Numbers of the channels it makes.
        columns: Shape ``(made, taken)``: the sum of the weight over space.
        touched: Same shape: whether any entry is not zero.
        anywhere: Whether a constant input gives a constant output: no padding adds zeros at the borders.
    """

    node: int
    taken: Channels
    made: Slots
    columns: npt.NDArray[np.float64]
    touched: npt.NDArray[np.bool_]
    anywhere: bool


@dataclass
class Trace:
    """A graph that is being followed.

    Attributes:
        model: The model.
        shapes: Of activations, where they are known.
        index: Of the graph.
        fixed: Values of the small constants inside the graph, by name.
        given: Names of the graph's inputs: a caller may replace the tensors among them.
        channels: Of activations, by name; of those not listed nothing is known.
        groups: Of channels.
        claims: Of tensors and constants, one for each axis of each read.
        claimed: How many reads of each tensor are understood.
        sinks: Layers that sum over channels.
        edits: What else has to change in nodes once it is known which channels are left.
    """

    model: QuantizedModel
    shapes: Mapping[str, Shape]
    index: GraphIndex
    fixed: Mapping[str, Array]
    given: frozenset[str]
    channels: dict[str, Channels] = field(default_factory=dict)
    groups: SlotGroups = field(default_factory=SlotGroups)
    claims: list[Claim] = field(default_factory=list)
    claimed: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    sinks: list[Sink] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)

    @classmethod
    def of(cls, model: QuantizedModel, shapes: Mapping[str, Shape]) -> "Trace":
        """Nothing followed yet."""
        given = frozenset(value.name for value in model.graph.graph.input)
        return cls(model, shapes, GraphIndex.of_model(model.graph), constants(model.graph), given)

    def constant(self, name: str) -> Array | None:
        """The value of a tensor, or of a constant inside the graph; None of anything else."""
        if name in self.fixed:
            return self.fixed[name]
        if name not in self.model.tensors or name in self.given:
            return None
        return dense_array(self.model.tensors[name])

    def claim(self, tensor: str, axes: Mapping[int, tuple[Slots, Role]]) -> None:
        """Understand one read of a tensor: which channels its axes count."""
        self.claimed[tensor] += 1
        self.claims += [Claim(tensor, axis, slots, role) for axis, (slots, role) in axes.items()]

    def fix(self, names: Sequence[str]) -> None:
        """Let all channels of these activations stay."""
        for name in names:
            if name in self.channels:
                self.groups.fix(self.channels[name].slots)

    def made(self, axis: int, n: int) -> Channels:
        """New channels of which no value is known."""
        return Channels(axis, self.groups.new(n), np.zeros(n, np.bool_), np.zeros(n))

    def rank(self, name: str) -> int | None:
        """Number of axes of an activation."""
        return len(self.shapes[name]) if name in self.shapes else None


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Of a node, or the default."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Replace an attribute of a node."""
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def give_constant(trace: Trace, node: onnx.NodeProto, place: int, value: Array) -> None:
    """Give a node a constant of its own: others may read the one it had."""
    graph = trace.model.graph.graph
    name = f"{node.output[0]}.channels{place if place > 1 else ''}"
    constant = helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
    node.input[place] = name
    graph.node.insert(0, constant)
