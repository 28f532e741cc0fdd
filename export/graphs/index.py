"""Who makes and who uses which tensor of an ONNX graph."""

from collections import Counter, defaultdict
from collections.abc import Iterable

import onnx

from modelpress.export.graphs.parts import graphs_of

# operators whose result is another one at every call, even on constants
_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)

_OF_SHAPES = frozenset({"Shape", "Size"})


class GraphIndex:
    """The main graph of a model, by tensor name.

    Attributes:
        nodes: In graph order; the numbers below count in this list.
        stored: Initializers by name.
        overridable: Initializers that are inputs of the graph too: a caller may replace them.
        producers: Number of the node that makes a tensor.
        consumers: Numbers of the nodes that use it, nested graphs included, in graph order.
        outputs: Names of the graph's outputs.
        kept: Names that must keep their value: outputs of the graph, and what other graphs refer to.
        reads: How often each name is read, by nodes and as an output, of this and the other graphs.

    Args:
        graph: The main graph.
        others: The other graphs of the model, nested and training ones; `of_model` finds them. Without them, `kept`
            and `reads` tell of the main graph alone.

    Example:
        >>> w = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], [2.0])
        >>> nodes = [onnx.helper.make_node("Neg", ["w"], ["v"]), onnx.helper.make_node("Mul", ["x", "v"], ["y"])]
        >>> index = GraphIndex(onnx.helper.make_graph(nodes, "g", [], [], [w]))
        >>> index.producers, sorted(index.constants())
        ({'v': 0, 'y': 1}, ['v', 'w'])
    """

    def __init__(self, graph: onnx.GraphProto, others: Iterable[onnx.GraphProto] = ()) -> None:
        self.nodes = list(graph.node)
        self.stored = {tensor.name: tensor for tensor in graph.initializer}
        self.overridable = {value.name for value in graph.input if value.name in self.stored}
        self.outputs = [value.name for value in graph.output]
        self.producers = {name: k for k, node in enumerate(self.nodes) for name in node.output if name}
        self.consumers: defaultdict[str, list[int]] = defaultdict(list)
        for k, node in enumerate(self.nodes):
            for name in {*node.input, *_captured(node)} - {""}:
                self.consumers[name].append(k)

        self.kept = set(self.outputs)
        self.reads: Counter[str] = Counter(self.outputs)
        self.reads.update(name for node in self.nodes for name in node.input)
        for part in others:
            names = [name for node in part.node for name in node.input] + [v.name for v in part.output]
            self.kept.update(names)
            self.reads.update(names)

    @classmethod
    def of_model(cls, model: onnx.ModelProto) -> "GraphIndex":
        """The index of a model's main graph that knows what all its other graphs read."""
        return cls(model.graph, [part for _, part in graphs_of(model) if part is not model.graph])

    def producer(self, name: str) -> onnx.NodeProto | None:
        """The node that makes a tensor; None for inputs and initializers."""
        return self.nodes[self.producers[name]] if name in self.producers else None

    def users(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that use a tensor."""
        return [self.nodes[k] for k in self.consumers.get(name, ())]

    def only_reader(self, name: str) -> int | None:
        """Number of the node that alone reads a tensor, and once, if nothing else refers to it."""
        readers = self.consumers.get(name, [])
        alone = len(readers) == 1 and self.reads[name] == 1 and name not in self.kept
        return readers[0] if alone else None

    def constants(self, *, overridable: bool = True) -> set[str]:
        """Tensors whose value is known from the file alone: initializers, and what is computed from them only.

        Args:
            overridable: Count initializers that are graph inputs too; the values a caller may replace.
        """
        known = set(self.stored) - (set() if overridable else self.overridable)
        for node in self.nodes:  # in topological order, as the format demands
            if node.op_type not in _RANDOM and all(n in known for n in reads_of(node)):
                known.update(name for name in node.output if name)

        return known

    def of_shapes(self, constants: Iterable[str] = ()) -> set[int]:
        """Numbers of the nodes that compute with the shapes of tensors, and constants, alone.

        Args:
            constants: Names of tensors that are kept beside the graph.
        """
        known = {*self.stored, *constants}
        shapes: set[str] = set()
        found: set[int] = set()
        for k, node in enumerate(self.nodes):
            needs = reads_of(node)
            derived = any(n in shapes for n in needs) and all(n in known or n in shapes for n in needs)
            if node.op_type in _OF_SHAPES or derived:
                found.add(k)
                shapes.update(name for name in node.output if name)
            elif node.op_type not in _RANDOM and all(n in known for n in needs):
                known.update(name for name in node.output if name)

        return found

    def by_dataflow(self) -> list[onnx.NodeProto]:
        """The nodes that the outputs depend on, each after what it uses.

        Files list parallel branches in any order; this one follows from the graph alone.
        """
        ordered: list[int] = []
        seen: set[int] = set()
        pending = [(k, False) for k in self._makers(self.outputs)]

        while pending:
            number, complete = pending.pop()
            if complete:
                ordered.append(number)
            elif number not in seen:
                seen.add(number)
                pending.append((number, True))
                pending += [(k, False) for k in self._makers(reads_of(self.nodes[number]))]

        return [self.nodes[k] for k in ordered]

    def _makers(self, names: list[str]) -> list[int]:
        """Numbers of the nodes that make these tensors, last first: to be taken from the end."""
        return [self.producers[name] for name in reversed(names) if name in self.producers]

    def ancestors(self, names: list[str]) -> tuple[list[int], list[str]]:
        """The nodes that tensors are computed by, in graph order, and the initializers these start from."""
        pending, seen = list(names), set(names)
        needed: set[int] = set()

        while pending:
            name = pending.pop()
            if name not in self.producers or self.producers[name] in needed:
                continue

            needed.add(self.producers[name])
            fresh = set(reads_of(self.nodes[self.producers[name]])) - seen
            seen |= fresh
            pending += fresh

        return sorted(needed), [name for name in self.stored if name in seen]


def reads_of(node: onnx.NodeProto) -> list[str]:
    """Every name that a node reads, those that its nested graphs take from outside included."""
    return [name for name in (*node.input, *_captured(node)) if name]


def _captured(node: onnx.NodeProto) -> set[str]:
    """Names that nested graphs use and do not make themselves."""
    names: set[str] = set()
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            made = {t.name for t in graph.initializer} | {v.name for v in graph.input}
            made |= {name for inner in graph.node for name in inner.output}
            used = {name for inner in graph.node for name in reads_of(inner)} | {v.name for v in graph.output}
            names |= used - made

    return names
