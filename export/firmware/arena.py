"""Where activations lie: planes with room for paddings, and places in one arena that those share that never meet.

Rows of a plane are followed by as many columns, and planes by as many rows, as any convolution reads beyond them: the
end of one row is the beginning of the next. Activations of one size get the same room, so that an output lies as its
input does and all rows run as one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

from modelpress.export.firmware.network import (
    Activation,
    Add,
    Conv,
    ConvValues,
    Copy,
    Multiply,
    Network,
    Operator,
    Window,
)

_ALIGNMENT = 4
_BLOCK = 8  # outputs that are computed together, whether there are so many or not
_MOST_ORDERS = 720  # of the largest activations, that are tried


@dataclass(frozen=True)
class Planes:
    """An activation in memory.

    Attributes:
        activation: What it is.
        pad_rows: Between planes, and in front of the first.
        pad_columns: Between rows.
        overrun: Bytes behind the last element that blocks of outputs read.
        start: Of its memory in the arena, in bytes.
    """

    activation: Activation
    pad_rows: int
    pad_columns: int
    overrun: int = _BLOCK
    start: int = 0

    @property
    def row(self) -> int:
        """From one row to the next."""
        return self.activation.width + self.pad_columns

    @property
    def pitch(self) -> int:
        """From one plane to the next."""
        return (self.activation.height + self.pad_rows) * self.row

    @property
    def front(self) -> int:
        """Bytes in front of the first element."""
        return self.pad_rows * self.row + self.pad_columns

    @property
    def size(self) -> int:
        """Bytes in all."""
        used = self.front + self.activation.channels * self.pitch + self.overrun
        return -(-used // _ALIGNMENT) * _ALIGNMENT


@dataclass(frozen=True)
class Arena:
    """The plan.

    Attributes:
        planes: Of every activation, by name.
        size: Bytes of all activations together.
        lives: First and last operator at which each is there.
    """

    planes: Mapping[str, Planes]
    size: int
    lives: Mapping[str, tuple[int, int]]


def plan_arena(network: Network) -> Arena:
    """Place all activations.

    A sum takes the place of the term that nobody reads afterwards. Of the rest, larger ones are placed first, each as
    low as it can be; some orders are tried.
    """
    unplaced = _with_room(network)
    lives = _lives(network)
    together = _shared(network, lives, unplaced)
    blocks = _blocks(unplaced, lives, together)

    size, starts = min((_place(order) for order in _orders(blocks)), key=lambda found: found[0])
    planes = {
        name: replace(p, start=starts[together.get(name, name)])
        for name, p in unplaced.items()
        if name in lives
    }
    return Arena(planes, size, lives)


@dataclass(frozen=True)
class _Block:
    name: str
    size: int
    first: int
    last: int


def _with_room(network: Network) -> dict[str, Planes]:
    """Paddings as the largest that any reader of an activation of this size needs."""
    room: dict[tuple[int, int], tuple[int, int, int]] = {}
    for operator in network.operators:
        if isinstance(operator, Conv | ConvValues):
            source = network.activations[operator.sources[0]]
            size = source.height, source.width
            needed = zip(_needed(operator.weights.window), room.get(size, (0, 0, _BLOCK)), strict=True)
            rows, columns, overrun = map(max, needed)
            room[size] = rows, columns, overrun
    return {
        name: Planes(activation, *room.get((activation.height, activation.width), (0, 0, _BLOCK)))
        for name, activation in network.activations.items()
    }


def _needed(window: Window) -> tuple[int, int, int]:
    overrun = _BLOCK * (window.stride_columns + 1)
    return max(window.pad_top, window.pad_bottom), max(window.pad_left, window.pad_right), overrun


def _lives(network: Network) -> dict[str, tuple[int, int]]:
    lives = {network.source.name: (-1, -1)}
    for place, operator in enumerate(network.operators):
        if operator.output in network.activations:
            lives[operator.output] = place, place
        for source in operator.sources:
            lives[source] = lives[source][0], place
    return lives


def _shared(
    network: Network, lives: Mapping[str, tuple[int, int]], planes: Mapping[str, Planes]
) -> dict[str, str]:
    """Outputs that take the place of an input, element by element, and the activation whose place it was first."""
    owner: dict[str, str] = {}
    for place, operator in enumerate(network.operators):
        for source in _replaceable(operator):
            same = _form(planes[source]) == _form(planes[operator.output])
            if lives[source][1] == place and same:
                owner[operator.output] = owner.get(source, source)
                break
    return owner


def _form(planes: Planes) -> tuple[int, ...]:
    activation = planes.activation
    return activation.channels, activation.height, activation.width, planes.pad_rows, planes.pad_columns


def _replaceable(operator: Operator) -> Sequence[str]:
    """What an operator reads element by element just before it writes the same element."""
    if isinstance(operator, Conv):
        return [name for name in operator.sources[1:] if name != operator.sources[0]]
    if isinstance(operator, Copy):
        return operator.sources if len(operator.sources) == 1 and not operator.is_partial else ()
    return operator.sources if isinstance(operator, Add | Multiply) else ()


def _blocks(
    planes: Mapping[str, Planes], lives: Mapping[str, tuple[int, int]], together: Mapping[str, str]
) -> list[_Block]:
    members: dict[str, list[str]] = {}
    for name in lives:
        members.setdefault(together.get(name, name), []).append(name)
    return [
        _Block(owner, planes[owner].size, min(lives[n][0] for n in names), max(lives[n][1] for n in names))
        for owner, names in members.items()
    ]


def _orders(blocks: list[_Block]) -> Iterable[list[_Block]]:
    by_size = sorted(blocks, key=lambda block: (-block.size, block.first))
    head = by_size[:6]
    for order in list(permutations(head))[:_MOST_ORDERS]:
        yield [*order, *by_size[len(head) :]]
    yield sorted(blocks, key=lambda block: block.first)


def _place(order: Sequence[_Block]) -> tuple[int, dict[str, int]]:
    """Each as low as it can be beside those that are there at the same time."""
    placed: list[tuple[int, _Block]] = []
    for block in order:
        beside = sorted(
            (start, start + other.size)
            for start, other in placed
            if other.first <= block.last and block.first <= other.last
        )
        at = 0
        for start, end in beside:
            if at + block.size <= start:
                break
            at = max(at, end)
        placed.append((at, block))
    size = max((start + block.size for start, block in placed), default=0)
    return size, {block.name: start for start, block in placed}
