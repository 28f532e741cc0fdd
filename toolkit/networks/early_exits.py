"""Heads after chosen blocks of a classifier, by which an easy example leaves it early.

The network keeps its class, its names and, in evaluation mode, its output: the heads are one more child, ``exits``,
that watches the blocks. In training mode it answers with all its exits, the last one first, as networks of the field
do that have auxiliary classifiers.

Source: Teerapittayanon, McDanel and Kung 2016, arXiv:1709.01686 (BranchyNet); heads on networks that were trained
before, and what leaving early does to accuracy: Kaya, Hong and Dumitras 2019, arXiv:1810.07052.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

from modelpress.export.errors import InputError
from modelpress.toolkit.networks.exit_places import ExitPlace, ExitPlaces

EXITS = "exits"  # the child of the network that holds them
HeadKind = Literal["conv", "pool"]


class PoolHead(nn.Module):
    """The mean over all places, and a linear classifier.

    Args:
        place: What the head is given.
        n_classes: Number of outputs.
    """

    def __init__(self, place: ExitPlace, n_classes: int) -> None:
        super().__init__()
        self.axes = tuple(axis for axis in range(1, place.ndim) if axis != place.channel_axis)
        self.linear = nn.Linear(place.channels, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, …) or (N, …, C) to logits (N, n_classes)."""
        return self.linear(x.mean(self.axes) if self.axes else x)


class ConvHead(nn.Module):
    """Two 3x3 convolutions that each halve the image, their mean, and a linear classifier.

    Early blocks see little of the image, and know few features; in a ResNet-20 these two take a twentieth of the time
    of the network.

    Args:
        place: What the head is given: images.
        n_classes: Number of outputs.
        width: Channels at most, unless the block has more: each convolution doubles them up to here.
    """

    def __init__(self, place: ExitPlace, n_classes: int, width: int) -> None:
        super().__init__()
        most = max(width, place.channels)
        widths = [min(place.channels * factor, most) for factor in (1, 2, 4)]
        self.convs = nn.Sequential()
        for c_in, c_out in pairwise(widths):
            self.convs.append(nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=False))
            self.convs.append(nn.BatchNorm2d(c_out))
            self.convs.append(nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(widths[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to logits (N, n_classes)."""
        return self.linear(self.pool(self.convs(x)).flatten(1))


class EarlyExits(nn.Module):
    """The heads of a network, and what it answers with them.

    Attributes:
        after: Names of the blocks, in the order of the network.
        kind: Of the heads.
        apart: No gradient flows from the heads into the network.
        shown: Whether the network answers with all its exits in evaluation mode, too.
        trained: Whether the heads come out of a file.
    """

    def __init__(self, where: ExitPlaces, *, kind: HeadKind, apart: bool = False) -> None:
        super().__init__()
        self.after = tuple(place.name for place in where.places)
        self.kind, self.apart = kind, apart
        self.shown = self.trained = False
        self.heads = nn.ModuleDict({key_of(place.name): _head(place, where, kind) for place in where.places})
        self._seen: dict[str, Tensor] = {}

    def forward(self, x: Any) -> Any:
        """What comes in: a network that calls all its children in turn has one more that does nothing."""
        return x

    def attach(self, network: nn.Module) -> None:
        """Become a child of the network and watch its blocks.

        The hooks are methods of this module, not closures: a deep copy of the network has its own.
        """
        for name in self.after:
            network.get_submodule(name).register_forward_hook(partial(self._see, name))
        network.register_forward_hook(self._answer)
        network.add_module(EXITS, self)

    def _see(self, name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if self.training or self.shown:
            self._seen[name] = output.detach() if self.apart else output

    def _answer(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if not (self.training or self.shown):
            return None  # the output stays
        seen, self._seen = self._seen, {}
        early = (self.heads[key_of(name)](seen[name]) for name in self.after)
        return (output, *early)


def exits_of(network: nn.Module) -> EarlyExits | None:
    """The exits of a network, if it has any."""
    found = network._modules.get(EXITS)
    return found if isinstance(found, EarlyExits) else None


def show_exits(network: nn.Module) -> None:
    """Let a network answer with all its exits in evaluation mode, too; nothing where there are none."""
    exits = exits_of(network)
    if exits is not None:
        exits.shown = True


@contextmanager
def exits_shown(exits: EarlyExits) -> Iterator[None]:
    """For a while, the network answers with all its exits in evaluation mode."""
    exits.shown = True
    try:
        yield
    finally:
        exits.shown = False


def key_of(name: str) -> str:
    """A block's name where modules allow no dots."""
    return name.replace(".", "/")


def _head(place: ExitPlace, where: ExitPlaces, kind: HeadKind) -> nn.Module:
    """Convolutions where the head is given images, if the recipe wants them."""
    if kind == "conv" and place.is_image:
        return ConvHead(place, where.n_classes, where.width)
    return PoolHead(place, where.n_classes)


def attach_exits(network: nn.Module, where: ExitPlaces, *, kind: HeadKind, apart: bool) -> EarlyExits:
    """Give a network heads after these blocks.

    Raises:
        InputError: It has a child of that name already.
    """
    if hasattr(network, EXITS):
        raise InputError(
            f"{type(network).__name__} has something called {EXITS!r} already: early exits would take its place"
        )
    exits = EarlyExits(where, kind=kind, apart=apart)
    exits.to(next(p.device for p in network.parameters()))  # a classifier has some
    exits.attach(network)
    return exits
