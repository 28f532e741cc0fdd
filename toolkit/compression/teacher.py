"""The network that trainings distil from."""

import copy
from pathlib import Path

from torch import nn

from modelpress.export.errors import InputError
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.network_file import load_network
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.networks.layers import n_classes_of
from modelpress.toolkit.recipe import Recipe
from modelpress.toolkit.training.device import Device


def teacher_for(recipe: Recipe, dense: NetworkState, device: Device) -> nn.Module | None:
    """The network to distil from, in evaluation mode: the recipe's, or a copy of `dense`; None if none is needed.

    Raises:
        InputError: The recipe's teacher is not readable, or has other classes; or the network is pruned already.
    """
    if not (recipe.finetune.distill_weight or recipe.sparsify.distill_weight):
        return None

    teacher = _copied(dense) if recipe.model.teacher is None else _loaded(recipe, dense)
    device.place(teacher)
    return teacher.requires_grad_(False).eval()


def _copied(dense: NetworkState) -> CompressedNetwork:
    if dense.masks:
        raise InputError(
            "the network is pruned already, and so is no teacher: name the dense one with "
            "--set model.teacher=FILE, or set distill_weight to 0"
        )
    return copy.deepcopy(dense.compressed())


def _loaded(recipe: Recipe, dense: NetworkState) -> CompressedNetwork:
    loaded = load_network(Path(str(recipe.model.teacher)), recipe.model)

    expected, found = n_classes_of(dense.network), n_classes_of(loaded.network)
    if found != expected:
        raise InputError(
            f"teacher {recipe.model.teacher} has {found} classes, the network {expected}: "
            "choose one trained on the same data"
        )
    return loaded.compressed()
