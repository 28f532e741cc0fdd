"""A model cut into the parts between its exits: each what is computed from one exit to the next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import onnx

from modelpress.export.graphs.index import GraphIndex, reads_of

_REPEATED = "DequantizeLinear"  # in every part that reads it: fused with what reads it, it costs nothing
_SMALL = 4096  # bytes of an initializer that parts share: each has its own


@dataclass
class Part:
    """What leads from one exit to the next.

    Attributes:
        output: Name of the exit's logits.
        nodes: In an order in which they can be computed.
        initializers: That only this part reads, or that it has a copy of.
        reads: What it takes from the parts before, and of the inputs of the model, in the order of first use.
    """

    output: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)


def cut(model: onnx.ModelProto, outputs: Sequence[str]) -> list[Part]:
    """The parts of a model, up to each of its exits.

    Constants that more than one part reads, and the dequantization of what one part hands to the next, are in both: a
    runtime folds and fuses within one graph alone.

    Args:
        model: With all these outputs.
        outputs: Of the exits, in the order in which they are met; the last one is the network's own.
    """
    cutter = _Cutter(model, outputs)
    return [cutter.part(k) for k in range(len(outputs))]


class _Cutter:
    """Which node belongs to which part, and what each part has copies of."""

    def __init__(self, model: onnx.ModelProto, outputs: Sequence[str]) -> None:
        self._outputs = outputs
        self._index = GraphIndex(model.graph)
        self._constant = self._index.constants() - set(self._index.stored)
        self._inputs = {value.name for value in model.graph.input} - set(self._index.stored)
        self._part_of: dict[int, int] = {}
        for k, output in enumerate(outputs):
            for number in self._index.ancestors([output])[0]:
                if not self._is_constant(number):
                    self._part_of.setdefault(number, k)

        self._numbers = [self._numbers_of(k) for k in range(len(outputs))]
        self._users: dict[str, set[int]] = {}  # of stored tensors, by parts
        for k, numbers in enumerate(self._numbers):
            for number in numbers:
                for name in reads_of(self._index.nodes[number]):
                    if name in self._index.stored:
                        self._users.setdefault(name, set()).add(k)

    def part(self, k: int) -> Part:
        """The k-th."""
        part, numbers = Part(self._outputs[k]), self._numbers[k]
        own = {name for number in numbers for name in self._index.nodes[number].output}
        renamed = self._renamed(k, numbers)

        for number in numbers:
            node = onnx.NodeProto()
            node.CopyFrom(self._index.nodes[number])
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    names[place] = renamed.get(name, name)
            part.nodes.append(node)

        for name in self._read_by(numbers):
            if name in self._index.stored:
                self._store(part, k, name, renamed)
            elif name not in own:
                part.reads.append(name)
        return part

    def _store(self, part: Part, k: int, name: str, renamed: dict[str, str]) -> None:
        """An initializer where it is first read; a small one in every part."""
        if name not in renamed and k != min(self._users[name]):
            return
        tensor = onnx.TensorProto()
        tensor.CopyFrom(self._index.stored[name])
        tensor.name = renamed.get(name, name)
        part.initializers.append(tensor)

    def _numbers_of(self, k: int) -> list[int]:
        """Nodes of a part in graph order, with those that it has copies of."""
        own = {number for number, part in self._part_of.items() if part == k}
        pending = list(own)
        while pending:
            for name in reads_of(self._index.nodes[pending.pop()]):
                maker = self._index.producers.get(name)
                if maker is not None and maker not in own and self._repeats(maker):
                    own.add(maker)
                    pending.append(maker)
        return sorted(own)

    def _repeats(self, number: int) -> bool:
        return self._is_constant(number) or self._index.nodes[number].op_type == _REPEATED

    def _is_constant(self, number: int) -> bool:
        return any(name in self._constant for name in self._index.nodes[number].output)

    def _renamed(self, k: int, numbers: Sequence[int]) -> dict[str, str]:
        """New names for what an earlier part has too: graphs inside others must not use a name again."""
        copied = [
            name
            for number in numbers
            if self._part_of.get(number) != k and any(number in self._numbers[j] for j in range(k))
            for name in self._index.nodes[number].output
        ]
        small = [
            name
            for name in self._read_by(numbers)
            if name in self._index.stored
            and k != min(self._users[name])
            and self._index.stored[name].ByteSize() <= _SMALL
        ]
        return {name: f"{name}.{k}" for name in (*copied, *small) if name}

    def _read_by(self, numbers: Sequence[int]) -> Iterator[str]:
        """Names in the order of first use."""
        yield from dict.fromkeys(name for number in numbers for name in reads_of(self._index.nodes[number]))
