"""From a dense network to a compressed one: prune, quantize, finetune, settle what is left."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from modelpress.toolkit.compression.network_file import NetworkState, save_network
from modelpress.toolkit.compression.stages import (
    batch_norm_stage,
    half_parameters_stage,
    prune_stage,
    quantizer_stage,
    removed_weights,
    sparsify_stage,
    teacher_for,
    train_stage,
)
from modelpress.toolkit.data.image_set import ImageSet
from modelpress.toolkit.output_folder import state_path
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.recipe import Recipe
from modelpress.toolkit.training.device import Device

PRUNED_NETWORK, CHECKPOINT = "pruned.safetensors", "checkpoint.safetensors"

Watch = Callable[[str, NetworkState], None]


def compress(
    dense: NetworkState,
    images: ImageSet,
    recipe: Recipe,
    device: Device,
    *,
    folder: Path,
    resume: bool,
    progress: Progress,
    watch: Watch,
) -> NetworkState:
    """Carry out the recipe's sections prune, sparsify, quantize and finetune; `CHECKPOINT` in `folder` is the result.

    Args:
        dense: Where to start; its network is changed. What was removed from it before stays removed.
        images: Training and validation split are used.
        recipe: What to do.
        device: The network is there already.
        folder: Keeps unfinished trainings, and the networks after `sparsify` and at the end.
        resume: Go on with trainings that are unfinished there.
        progress: Told of every stage.
        watch: Called with ``pruned``, ``quantized`` and ``finetuned`` and the network at that point, unless a schedule
            makes two of them one.

    Raises:
        InputError: The teacher is not usable, or the network is quantized already.
        Interrupted: Stopped on request.
    """
    teacher = teacher_for(recipe, dense, device)
    progress.stage("prune")
    if recipe.prune.by_penalty:
        state = state_path(folder / PRUNED_NETWORK)
        pruned = sparsify_stage(
            dense, images, recipe, device, progress, teacher=teacher, state_path=state, resume=resume
        )
        if device.team.first:
            save_network(folder / PRUNED_NETWORK, pruned)
    else:
        pruned = dense if recipe.prune.scheduled else prune_stage(dense, recipe.prune)
    if not recipe.prune.scheduled:
        progress.note(removed_weights(pruned))
        watch("pruned", pruned)
    return quantize_and_finetune(
        pruned,
        images,
        recipe,
        device,
        teacher=teacher,
        output=folder / CHECKPOINT,
        resume=resume,
        progress=progress,
        watch=watch,
    )


def quantize_and_finetune(
    pruned: NetworkState,
    images: ImageSet,
    recipe: Recipe,
    device: Device,
    *,
    teacher: nn.Module | None,
    output: Path,
    resume: bool,
    progress: Progress,
    watch: Watch,
) -> NetworkState:
    """The part of `compress` from the pruned network on, with pruning on a schedule; `output` is the result.

    Args:
        teacher: To distil from, where the recipe asks for it.
        output: Network file; an unfinished training is kept beside it.
    """
    progress.stage("quantize")
    quantized = quantizer_stage(pruned, recipe.quantize)
    if recipe.prune.scheduled:
        progress.note(f"weights are removed during the first {recipe.prune.epochs} epochs of the finetuning")
    elif not recipe.quantize.after:
        watch("quantized", quantized)
    trained = train_stage(
        quantized,
        images,
        recipe,
        device,
        progress,
        stage="finetune",
        teacher=teacher,
        state_path=state_path(output),
        resume=resume,
    )
    if recipe.prune.scheduled:
        progress.note(removed_weights(trained))
    trained = batch_norm_stage(trained, recipe, images, device)
    watch("finetuned", trained)
    finished = half_parameters_stage(trained, recipe.pack, images, device, progress)
    if device.team.first:
        save_network(output, finished)
    return finished
