"""The network that trainings distil from."""

import copy
from pathlib import Path

from torch import nn

from modelpress.export.errors import InputError
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.network_file import load_network
from modelpress.toolkit.compression.state import InputContract, NetworkState
from modelpress.toolkit.networks.renormalised import RenormalisedTeacher
from modelpress.toolkit.recipe import Recipe
from modelpress.toolkit.training.device import Device
from modelpress.toolkit.training.evaluate import n_outputs_of


def teacher_for(recipe: Recipe, dense: NetworkState, device: Device) -> nn.Module | None:
    """The network to distil from, in evaluation mode: the recipe's, or a copy of `dense`; None if none is needed.

    It takes batches that are normalised for `dense`.

    Raises:
        InputError: The recipe's teacher is not readable, or has other classes; or the network is pruned already.
    """
    sections = (recipe.train, recipe.exits, recipe.sparsify, recipe.finetune)
    if not any(section is not None and section.distill_weight for section in sections):
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


def _loaded(recipe: Recipe, dense: NetworkState) -> nn.Module:
    options = recipe.model.of_teacher
    loaded = load_network(Path(str(recipe.model.teacher)), options)

    expected, found = (n_outputs_of(state.network, dense.inputs) for state in (dense, loaded))
    if found != expected:
        raise InputError(
            f"teacher {recipe.model.teacher} has {found} classes, the network {expected}: "
            "choose one trained on the same data"
        )

    own, given = loaded.contract, dense.contract
    if own is None and options.normalisation is not None:  # a network file that does not say
        own = InputContract.of_normalisation(options.normalisation)
    if own is None or given is None or (own.mean, own.std) == (given.mean, given.std):
        return loaded.compressed()
    return RenormalisedTeacher(loaded.compressed(), batch=(given.mean, given.std), wanted=(own.mean, own.std))
