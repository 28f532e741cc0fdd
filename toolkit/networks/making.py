"""A freshly initialised network: one of ours, of a library by its name, or by a function of the user's.

The user's code runs only where their own recipe or command line names it, never because a file does.
"""

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from modelpress.export.errors import InputError
from modelpress.export.extras import how_to_install
from modelpress.toolkit.networks.names import Shortcut
from modelpress.toolkit.networks.resnet_cifar import DEPTHS, ResNetCifar
from modelpress.toolkit.user_code import called

_DOWNLOADS = (
    "weights",
    "weights_backbone",
    "pretrained",
    "checkpoint_path",
)  # arguments that would fetch something


def make_network(
    arch: str,
    *,
    factory: str | None,
    arguments: Mapping[str, Any],
    shortcut: Shortcut,
    seed: int,
    n_classes: int,
) -> nn.Module:
    """A network; the same seed gives the same weights on every device.

    Args:
        arch: One of ours, or ``torchvision/NAME``, ``timm/NAME``.
        factory: ``package.module:function`` or ``file.py:function``, in place of it.
        arguments: Keyword arguments of the factory or of the library's network.
        shortcut: Of our networks.
        seed: Of the initialisation.
        n_classes: Outputs; a factory decides for itself.

    Raises:
        InputError: There is no such network, or the user's function fails or makes something else.
    """
    torch.manual_seed(seed)
    if factory is not None:
        return _by_factory(factory, arguments)
    if arch in DEPTHS:
        return ResNetCifar(arch, shortcut=shortcut, n_classes=n_classes)
    return _of_library(arch, n_classes, arguments)


def _by_factory(factory: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Call the user's function.

    Raises:
        InputError: It cannot be found, raises, or makes no module.
    """
    network = called(factory, "model.factory", arguments)
    if not isinstance(network, nn.Module):
        raise InputError(
            f"model.factory {factory!r} made a {type(network).__name__}; expected a torch.nn.Module"
        )
    return network


def _of_library(arch: str, n_classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    """A network of torchvision or timm, without pretrained weights.

    Raises:
        InputError: The library is not installed, has no such network, or refuses the arguments.
    """
    library, _, name = arch.partition("/")
    for key in _DOWNLOADS:
        if key in arguments:
            raise InputError(
                f"model.arguments has {key!r}: nothing is fetched here; give model.checkpoint a file"
            )
    try:
        models = importlib.import_module("torchvision.models" if library == "torchvision" else "timm")
    except ImportError as error:
        hint = how_to_install("train") if library == "torchvision" else "pip install timm"
        raise InputError(f"model.arch {arch}: {library} is not installed: {hint}") from error

    known = models.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, 3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"model.arch {arch}: {library} has no network of this name{hint}")
    make = models.get_model if library == "torchvision" else models.create_model
    try:
        network: nn.Module = make(name, num_classes=n_classes, **arguments)
    except Exception as error:  # whatever the network's class raises
        raise InputError(f"model.arch {arch}: {type(error).__name__}: {error}") from error
    return network
