"""What a graph's layers cost in computation, as they are and with fewer channels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt

from modelpress.export.graphs.channels.slots import Slots
from modelpress.export.graphs.channels.trace import Shape, Trace, attribute
from modelpress.export.graphs.operators import attribute_of, is_standard

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_OF_SPACE = ("strides", "pads", "dilations")


@dataclass(frozen=True)
class LayerShape:
    """A convolution or linear layer as hardware sees it.

    Attributes:
        operator: Of ONNX.
        taken: Channels that it takes.
        made: Channels that it makes.
        groups: Of a grouped convolution.
        size: Of space, before it; of a linear layer, how many rows one example has.
        positions: In space, or rows, that its sums are made for.
        kernel: Empty for a linear layer.
        moves: Strides, pads and dilations that are not the usual ones, by name.
    """

    operator: str
    taken: int
    made: int
    groups: int
    size: tuple[int, ...]
    positions: int
    kernel: tuple[int, ...] = ()
    moves: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def macs(self) -> int:
        """Multiplications for one example.

        Example:
            >>> LayerShape("Conv", 16, 32, 1, (8, 8), 64, (3, 3)).macs
            294912
        """
        return self.positions * self.taken * self.made * prod(self.kernel) // self.groups


@dataclass(frozen=True)
class CountedLayer:
    """A layer with the groups that its channels belong to.

    Attributes:
        shape: As it is.
        taken: Number of the group of each channel that it takes; None where they are not known: all stay.
        made: Likewise, of those that it makes.
    """

    shape: LayerShape
    taken: Slots | None
    made: Slots | None

    def without(self, removed: npt.NDArray[np.int64]) -> LayerShape:
        """Its shape once these groups are gone."""
        taken, made = (
            n if slots is None else int((~np.isin(slots, removed)).sum())
            for n, slots in ((self.shape.taken, self.taken), (self.shape.made, self.made))
        )
        groups = self.shape.groups * made // self.shape.made if self.shape.groups > 1 else 1
        return replace(self.shape, taken=taken, made=made, groups=max(groups, 1))


def counted_layers(trace: Trace) -> tuple[list[CountedLayer], list[str]]:
    """Every convolution and linear layer of a graph that was followed; and the weights of those of unknown shapes."""
    found, unknown = [], []
    for node in trace.index.nodes:
        if not is_standard(node) or node.op_type not in (*_CONVOLUTIONS, "Gemm", "MatMul"):
            continue
        weight = trace.constant(node.input[1])
        if weight is None or weight.ndim < 2:
            continue
        before, after = trace.shapes.get(node.input[0]), trace.shapes.get(node.output[0])
        if before is None or after is None:
            unknown.append(node.input[1])
            continue

        if node.op_type in _CONVOLUTIONS:
            moves = [(name, tuple(attribute(node, name, ()))) for name in _OF_SPACE]
            shape = _convolution(node.op_type, weight.shape, before, after, attribute_of(node, "group", 1))
            shape = replace(shape, moves=tuple(move for move in moves if move[1]))
        else:
            shape = _linear(
                node.op_type, weight.shape, before, transposed=bool(attribute_of(node, "transB", 0))
            )
        found.append(CountedLayer(shape, *(_groups(trace, n) for n in (node.input[0], node.output[0]))))
    return found, unknown


def _convolution(operator: str, weight: Shape, before: Shape, after: Shape, groups: int) -> LayerShape:
    straight = operator == "Conv"
    made = weight[0] if straight else weight[1] * groups
    positions = prod((after if straight else before)[2:])
    return LayerShape(operator, before[1], made, groups, before[2:], positions, weight[2:])


def _linear(operator: str, weight: Sequence[int], before: Shape, *, transposed: bool) -> LayerShape:
    made, taken = weight if transposed else reversed(weight[-2:])
    rows = prod(before[1:-1])
    return LayerShape(operator, taken, made, 1, (rows,), rows)


def _groups(trace: Trace, name: str) -> Slots | None:
    channels = trace.channels.get(name)
    return None if channels is None else trace.groups.roots(channels.slots)
