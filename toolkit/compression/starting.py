"""Where a chain starts: images, device and network of a recipe, checked before any work is done."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from modelpress.export.errors import InputError
from modelpress.toolkit.compression.choosing import layers_chosen
from modelpress.toolkit.compression.network_file import load_network, new_network
from modelpress.toolkit.compression.pruning.granularity import choose_masks
from modelpress.toolkit.compression.pruning.removal import prunable_layers
from modelpress.toolkit.compression.state import InputContract, NetworkState
from modelpress.toolkit.compression.teacher import teacher_for
from modelpress.toolkit.compression.work import TrainingSection, Work
from modelpress.toolkit.data.image_set import ImageSet
from modelpress.toolkit.data.registry import load_image_set
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.recipe import DataOptions, Recipe
from modelpress.toolkit.training.device import Device, device_of


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
    images = load_images(recipe.data)
    work = Work(
        recipe=recipe, images=images, device=device, progress=progress, outputs=outputs or {}, resume=resume
    )
    return starting_network(recipe, images, device), work


def load_images(options: DataOptions) -> ImageSet:
    """The data set with its validation split held out."""
    images = load_image_set(options.dataset, folder=options.dir, download=options.download)
    return images.hold_out(options.validation)


def starting_network(recipe: Recipe, images: ImageSet, device: Device) -> NetworkState:
    """The recipe's checkpoint, or a fresh network, on the device.

    Raises:
        InputError: The checkpoint is not readable, does not fit, or belongs to another data set.
    """
    if recipe.model.checkpoint is None:
        network = new_network(recipe.model, seed=recipe.seed, n_classes=len(images.class_names))
        state = NetworkState(network, recipe.model)
    else:
        state = load_network(Path(recipe.model.checkpoint), recipe.model)

    contract = InputContract.of(images)
    if state.contract is not None and state.contract.dataset != contract.dataset:
        raise InputError(
            f"{recipe.model.checkpoint} was trained on {state.contract.dataset}, the recipe's data set is "
            f"{contract.dataset}: choose it with -c RECIPE or --set data.dataset={state.contract.dataset}"
        )

    device.place(state.network)
    masks = {name: mask.to(device.torch_device) for name, mask in state.masks.items()}
    return replace(state, masks=masks, contract=state.contract or contract)


def check_dense(state: NetworkState) -> None:
    """Refuse a network that is pruned or quantized already where a dense one is needed.

    Raises:
        InputError: It is.
    """
    kinds = (("pruned", state.masks), ("quantized", state.quantizers))
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
        choose_masks(prunable_layers(state, recipe.prune), recipe.prune)
    teacher_for(recipe, state, device)
