"""Where a chain starts: images, device and network of a recipe, checked before any work is done."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from modelpress.export.errors import InputError
from modelpress.toolkit.compression.choosing import layers_chosen
from modelpress.toolkit.compression.exits.attaching import ask_exits
from modelpress.toolkit.compression.exits.unseen import check_unseen
from modelpress.toolkit.compression.network_file import load_network, new_network
from modelpress.toolkit.compression.pruning.coupling import coupling_for
from modelpress.toolkit.compression.pruning.granularity import choose_masks
from modelpress.toolkit.compression.pruning.removal import prunable_layers
from modelpress.toolkit.compression.state import InputContract, NetworkState
from modelpress.toolkit.compression.teacher import teacher_for
from modelpress.toolkit.compression.work import TrainingSection, Work
from modelpress.toolkit.data.data_set import DataSet
from modelpress.toolkit.data.own_data import load_own
from modelpress.toolkit.data.registry import load_data_set
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.recipe import DataOptions, Recipe
from modelpress.toolkit.training.device import Device, device_of
from modelpress.toolkit.training.evaluate import OneCall, n_outputs_of, predict
from modelpress.toolkit.training.examples import example_inputs


def start(
    recipe: Recipe,
    *,
    progress: Progress,
    outputs: Mapping[TrainingSection, Path] | None = None,
    resume: bool = False,
) -> tuple[NetworkState, Work]:
    """The recipe's network on its device, and the work to be done on it.

    Args:
        recipe: Says which data, network and device.
        progress: Told of what takes time.
        outputs: See `Work`.
        resume: Go on with unfinished trainings.

    Raises:
        InputError: Data, device or checkpoint are not usable.
    """
    device = device_of(recipe.run)
    images = load_images(recipe)
    for note in images.notes:
        progress.note(note)
    state = starting_network(recipe, images, device)
    for note in state.notes:
        progress.note(note)

    work = Work(
        recipe=recipe,
        data=images_for(state, images),
        device=device,
        progress=progress,
        outputs=outputs or {},
        resume=resume,
    )
    return state, work


def load_images(recipe: Recipe) -> DataSet:
    """The data set with its validation split held out.

    Raises:
        InputError: The data cannot be read, or are not what the task needs.
    """
    options = recipe.data
    if options.source is None:
        return load_named(recipe).hold_out(held_out_share(options))
    data = load_own(options, recipe.task)
    if not len(data.train):
        raise InputError(f"{data.name} holds no training examples")
    return data


def load_named(recipe: Recipe) -> DataSet:
    """The data set of that name, none of it held out.

    Raises:
        InputError: The files are not there, or the task does not suit images with one class each.
    """
    options, task = recipe.data, recipe.task
    if task.kind != "classification":
        raise InputError(
            f"task {task.kind}: the images of {options.dataset} have one class each; give data.source"
        )
    images = load_data_set(options.dataset, folder=options.dir, download=options.download)
    return replace(images, augment=options.augment, task=task)


def held_out_share(options: DataOptions) -> float:
    """Fraction of the training images of a named set that is held out.

    Raises:
        InputError: It is a source.
    """
    if isinstance(options.validation, str):
        raise InputError("data.validation is a source; for a data set with a name it is a fraction")
    return options.validation


def starting_network(recipe: Recipe, images: DataSet, device: Device) -> NetworkState:
    """The recipe's checkpoint, or a fresh network, on the device.

    Raises:
        InputError: The checkpoint is not readable, does not fit, or belongs to another data set.
    """
    if recipe.model.checkpoint is None:
        network = new_network(recipe.model, seed=recipe.seed, n_classes=images.n_outputs)
        state = NetworkState(network, recipe.model)
    else:
        state = load_network(Path(recipe.model.checkpoint), recipe.model)

    contract = _contract_of(state, recipe, images)
    if images.is_own:
        state = replace(state, inputs=example_inputs(contract.shown(images)))
        check_outputs(state, images)
    if recipe.exits is not None:
        _give_exits(state, recipe, images)
    device.place(state.network)
    masks = {name: mask.to(device.torch_device) for name, mask in state.masks.items()}
    return replace(state, masks=masks, contract=contract)


def _give_exits(state: NetworkState, recipe: Recipe, images: DataSet) -> None:
    """The exits that a recipe asks for; a checkpoint without them has new ones, to be trained.

    Raises:
        InputError: There are no held-out images, the network has seen them, or the exits do not fit it.
    """
    if not len(images.validation):
        raise InputError(
            "exits: thresholds are chosen on held-out images, and there are none: set data.validation above 0, as in "
            "0.1"
        )
    check_unseen(state, recipe, images)
    ask_exits(state.network, state.inputs, recipe)


def _contract_of(state: NetworkState, recipe: Recipe, images: DataSet) -> InputContract:
    """The network's own, else what the recipe says of its normalisation, else that of the data set.

    Raises:
        InputError: They contradict each other, or the network has other classes than the images.
    """
    checkpoint, stated = recipe.model.checkpoint, recipe.model.normalisation
    own = state.contract
    if own is not None and own.dataset not in (None, images.name):
        raise InputError(
            f"{checkpoint} was trained on {own.dataset}, the recipe's data set is "
            f"{images.name}: choose it with -c RECIPE or --set data.dataset={own.dataset}"
        )
    if own is not None and stated is not None and (own.mean, own.std) != (stated.mean, stated.std):
        raise InputError(
            f"{checkpoint} was trained with mean {own.mean} and std {own.std}, model.normalisation says mean "
            f"{stated.mean} and std {stated.std}: leave it out"
        )
    if stated is not None and images.mean and len(stated.mean) != len(images.mean):
        raise InputError(
            f"model.normalisation has {len(stated.mean)} channels, {images.name} has {len(images.mean)}"
        )

    if not images.is_own and (found := n_outputs_of(state.network, state.inputs)) != images.n_outputs:
        raise InputError(
            f"{checkpoint} has {found} classes, {images.name} {images.n_outputs}: choose the data set it was trained on"
        )
    if own is None:
        own = InputContract.of(images) if stated is None else InputContract.of_normalisation(stated)
    return own.completed(images)


def check_outputs(state: NetworkState, data: DataSet) -> None:
    """Call the network with two examples, and compare what it gives with what the task needs.

    Raises:
        InputError: It cannot be called with them, or gives another number of outputs.
    """
    outputs = predict(state.network, OneCall(state.inputs))
    if data.task.metric is not None or data.task.loss is not None or len(data.test.targets) > 1:
        return  # the user's own functions know what they take
    if not isinstance(outputs, np.ndarray):
        raise InputError(
            f"the network gives {len(outputs)} outputs; task {data.task.kind} is about one: give task.loss and "
            "task.metric"
        )

    places = data.test.labels.shape[1:] if data.task.kind == "sequence" else ()
    rest = outputs.shape[1:]
    expected = (*places, data.n_outputs)
    fits = rest == expected or (data.task.kind == "regression" and int(np.prod(rest)) == data.n_outputs)
    if not data.class_names and data.task.kind in ("classification", "sequence"):
        fits = len(rest) == len(expected) and rest[:-1] == places and rest[-1] >= data.n_outputs
    if not fits:
        shape = ", ".join(map(str, ("N", *expected)))
        raise InputError(
            f"the network's output has shape ({', '.join(map(str, ('N', *rest)))}); {data.name} needs ({shape}) for "
            f"task {data.task.kind}: give the network as many outputs (model.arguments), or choose the data it was "
            "trained on"
        )


def images_for(state: NetworkState, images: DataSet) -> DataSet:
    """The images as the network was trained to see them: with its own normalisation."""
    return images if state.contract is None else state.contract.shown(images)


def check_dense(state: NetworkState) -> None:
    """Refuse a network that is pruned or quantized already where a dense one is needed.

    Raises:
        InputError: It is.
    """
    # zeros that a checkpoint came with are no pruning of ours: passes hold them, and may remove more
    came_with_them = "zeros_kept" in state.history.get("checkpoint", {}) and "prune" not in state.history
    kinds = (("pruned", state.masks and not came_with_them), ("quantized", state.quantizers))
    done = " and ".join(word for word, facts in kinds if facts)
    if done:
        raise InputError(f"the checkpoint is {done} already; start from the dense network, or pack this one")


def check_recipe_fits(state: NetworkState, recipe: Recipe, device: Device) -> None:
    """Refuse what cannot be done with this network before any work starts.

    Raises:
        InputError: A name pattern matches no layer, a layer does not fit the granularity, or the teacher is not usable.
    """
    for pattern in (*recipe.prune.exclude, *recipe.quantize.layers):
        layers_chosen(state, pattern)

    # tried out and thrown away: each tells what does not fit far better than the pass hours later
    if recipe.prune.sparsity and not recipe.prune.by_penalty:
        coupling = coupling_for(state, recipe.prune)
        choose_masks(prunable_layers(state, recipe.prune), recipe.prune, coupling=coupling)
    teacher_for(recipe, state, device)
