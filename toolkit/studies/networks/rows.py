"""The ten networks: what each is made by, and what it is given."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from modelpress.export.errors import CommandLineError
from modelpress.toolkit.networks.making import make_network
from modelpress.toolkit.studies.networks import hand_written
from modelpress.toolkit.studies.networks.shaking import pictures

SEED = 0
_CLASSES = 1000


@dataclass(frozen=True)
class NetworkRow:
    """One network.

    Attributes:
        name: As in ``--rows``.
        source: Where its module comes from.
        make: Makes it; untrained, not seeded.
        draw: Draws a number of inputs, the first axis of the result.
    """

    name: str
    source: str
    make: Callable[[], nn.Module]
    draw: Callable[[int, torch.Generator], Tensor]

    def inputs(self, n: int, *, seed: int) -> Tensor:
        """The same inputs for the same seed."""
        return self.draw(n, torch.Generator().manual_seed(seed))


def _images(channels: int, height: int, width: int) -> Callable[[int, torch.Generator], Tensor]:
    return lambda n, generator: pictures(n, channels, height, width, generator)


def _numbers(*shape: int) -> Callable[[int, torch.Generator], Tensor]:
    return lambda n, generator: torch.randn(n, *shape, generator=generator)


def _words(words: int, length: int) -> Callable[[int, torch.Generator], Tensor]:
    return lambda n, generator: torch.randint(0, words, (n, length), generator=generator)


def _by_hand(
    name: str, make: Callable[[], nn.Module], draw: Callable[[int, torch.Generator], Tensor]
) -> NetworkRow:
    return NetworkRow(name, "by hand", make, draw)


def _of_torchvision(name: str, network: str, size: int, **arguments: Any) -> NetworkRow:
    def make() -> nn.Module:
        return make_network(
            f"torchvision/{network}",
            factory=None,
            arguments=arguments,
            shortcut="B",
            seed=SEED,
            n_classes=_CLASSES,
        )

    return NetworkRow(name, f"torchvision/{network}", make, _images(3, size, size))


ROWS: dict[str, NetworkRow] = {
    row.name: row
    for row in (
        _by_hand("small-cnn", hand_written.small_cnn, _images(3, 32, 32)),
        _by_hand("ds-cnn", hand_written.ds_cnn, _images(1, 49, 10)),
        _of_torchvision("mobilenet-v2", "mobilenet_v2", 224),
        _of_torchvision("resnet-18", "resnet18", 224),
        _of_torchvision("vgg-11-bn", "vgg11_bn", 32),  # pooled to 7 by 7, which does not divide what is there
        _of_torchvision("efficientnet-b0", "efficientnet_b0", 224),
        _by_hand("mlp", hand_written.mlp, _numbers(784)),
        _by_hand("vit", hand_written.VisionTransformer, _images(3, 224, 224)),
        _by_hand("text-transformer", hand_written.TextTransformer, _words(8000, 64)),
        _by_hand("lstm", hand_written.Lstm, _numbers(100, 40)),
    )
}


def choose_networks(wanted: Iterable[str]) -> list[NetworkRow]:
    """Rows by name or pattern, in the order of the study; ``all`` is all.

    Raises:
        CommandLineError: One of them fits no row.

    Example:
        >>> [row.name for row in choose_networks(["m*"])]
        ['mobilenet-v2', 'mlp']
    """
    chosen: set[str] = set()
    for text in wanted:
        found = {name for name in ROWS if text == "all" or fnmatchcase(name, text)}
        if not found:
            raise CommandLineError(f"--rows {text!r} fits no row; rows are {', '.join(ROWS)}")
        chosen |= found

    return [row for name, row in ROWS.items() if name in chosen]
