"""The layers that can be pruned and quantized, and how name patterns choose among them."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from torch import Tensor, nn

from modelpress.export.errors import InputError

V = TypeVar("V")


def weight_layers(model: nn.Module) -> dict[str, Tensor]:
    """Weights of all convolutions and linear layers, by layer name, in network order."""
    return {
        name: module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def n_classes_of(model: nn.Module) -> int:
    """Outputs of the last layer with weights, the classifier."""
    return len(list(weight_layers(model).values())[-1])


def without(layers: Mapping[str, V], patterns: Iterable[str]) -> dict[str, V]:
    """The layers that match none of the patterns.

    Raises:
        InputError: A pattern matches no layer at all.
    """
    excluded = {name for pattern in patterns for name in matching(layers, pattern)}
    return {name: value for name, value in layers.items() if name not in excluded}


def matching(layers: Iterable[str], pattern: str) -> list[str]:
    """Names that fit a shell-style pattern.

    Raises:
        InputError: None does.

    Example:
        >>> matching(["head.conv", "body.0.conv"], "body.*")
        ['body.0.conv']
    """
    names = list(layers)
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise InputError(f"pattern {pattern!r} matches no layer; layers are {', '.join(names[:4])}, …")
    return found
