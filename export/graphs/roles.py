"""What part a weight plays in its graph: the first, the last, the projection of a shortcut, or a depthwise kernel."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

import onnx

from modelpress.export.graphs.cleaning.layout import MOVES

Role = Literal["first", "last", "shortcut", "depthwise"]
ROLES: tuple[Role, ...] = ("first", "last", "shortcut", "depthwise")
_JOINS = ("Add", "Sum", "Concat")


def roles_of_weights(graph: onnx.GraphProto, weights: Mapping[str, Sequence[int]]) -> dict[Role, list[str]]:
    """Weights of the main graph by the part they play, in the order of the graph.

    ``first`` are those that read an input of the graph through no other weight, ``last`` those whose result reaches an
    output through no other. A ``shortcut`` is a weight that stands alone on its way to an addition or concatenation
    whose other side, from the same tensor on, goes through more weights: the projection of a residual block. A
    ``depthwise`` weight is that of a convolution whose every group reads one channel.

    Args:
        graph: Nodes in topological order; nested graphs are not looked into.
        weights: Shapes of tensors by name; those that the main graph does not read play no part.
    """
    walk = _Walk(graph, weights)
    return {
        "first": [w for w in walk.order if not walk.before[w] and walk.reads_input[w]],
        "last": [w for w in walk.order if w in walk.last()],
        "shortcut": [w for w in walk.order if w in walk.shortcuts()],
        "depthwise": [w for w in walk.order if w in walk.depthwise],
    }


class _Walk:
    """Follows every activation through the graph once."""

    def __init__(self, graph: onnx.GraphProto, weights: Mapping[str, Sequence[int]]) -> None:
        self.graph = graph
        self.order: list[str] = []
        self.before: dict[str, set[str]] = {}  # weights read by anything that the weight's node reads
        self.reads_input: dict[str, bool] = {}
        self.nearest: defaultdict[str, set[str]] = defaultdict(
            set
        )  # activation -> weights made by, none between
        self.depthwise: set[str] = set()
        self._shapes = weights
        self._behind: defaultdict[str, set[str]] = defaultdict(set)  # activation -> all weights before it
        self._starts: dict[str, str] = {}  # weight -> the activation that its node reads
        self._from_input = {value.name for value in graph.input}
        self._sources = _sources_of(graph, set(weights))
        for node in graph.node:
            self._visit(node)

    def _visit(self, node: onnx.NodeProto) -> None:
        if node.output and all(name in self._sources for name in node.output):
            return  # a weight on its way to its layout
        own = [weight for name in node.input for weight in self._sources.get(name, ())]
        activations = [name for name in node.input if name and name not in self._sources]
        behind = {w for name in activations for w in self._behind[name]}
        nearest = {w for name in activations for w in self.nearest[name]}
        reads_input = any(name in self._from_input for name in activations)
        if _groups(node) > 1:
            self.depthwise.update(weight for weight in own if tuple(self._shapes[weight][1:2]) == (1,))
        for weight in own:
            if weight not in self.before:
                self.order.append(weight)
                self.before[weight], self.reads_input[weight] = set(behind), reads_input
                self._starts[weight] = activations[0] if activations else ""
        for output in node.output:
            self._behind[output] = behind | set(own)
            self.nearest[output] = set(own) or nearest
            if reads_input:
                self._from_input.add(output)

    def last(self) -> set[str]:
        """Weights whose result reaches an output through no other."""
        return {weight for value in self.graph.output for weight in self.nearest[value.name]}

    def shortcuts(self) -> set[str]:
        """Weights alone beside a longer way."""
        found = set()
        for node in self.graph.node:
            sides = [name for name in node.input if self._behind[name]]
            if node.op_type not in _JOINS or len(sides) < 2:
                continue
            for side in sides:
                others = {w for other in sides if other != side for w in self._behind[other]}
                for weight in self.nearest[side]:
                    longer = others - self._behind[side] - self.before[weight]
                    alone = self._behind[side] - self.before[weight] == {weight}
                    same_start = any(self._starts[w] == self._starts[weight] for w in longer)
                    if alone and len(longer) > 1 and same_start:
                        found.add(weight)
        return found


def _groups(node: onnx.NodeProto) -> int:
    if node.op_type not in ("Conv", "ConvTranspose"):
        return 1
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _sources_of(graph: onnx.GraphProto, weights: set[str]) -> dict[str, tuple[str, ...]]:
    """The weights behind every name that is one, or moves some and constants alone."""
    sources: dict[str, tuple[str, ...]] = {name: (name,) for name in weights}
    constant = {node.output[0] for node in graph.node if node.op_type == "Constant"}
    constant |= {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.input and all(not name or name in constant for name in node.input):
            constant.update(node.output)
            continue
        known = [name for name in node.input if name in sources]
        rest = [name for name in node.input if name and name not in sources and name not in constant]
        if known and not rest and node.op_type in (*MOVES, "Cast"):
            for output in node.output:
                sources[output] = tuple(dict.fromkeys(w for name in known for w in sources[name]))
    return sources
