"""The stations of the chain, one function each; the pipeline and the single commands call the same ones."""

import copy
import hashlib
import json
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from modelpress.benchmarks.measures.sparsity import sparsity_of
from modelpress.export.errors import InputError
from modelpress.export.quantized import QuantizedModel
from modelpress.toolkit.compression.freeze import freeze
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.network_file import InputContract, NetworkState, load_network, new_network
from modelpress.toolkit.compression.pruning.granularity import choose_masks
from modelpress.toolkit.compression.pruning.proximal import ProximalStep
from modelpress.toolkit.compression.pruning.schedule import PruningSchedule
from modelpress.toolkit.compression.quantization.half_parameters import round_parameters_to_half
from modelpress.toolkit.compression.quantization.quantizers import QuantizerSpec
from modelpress.toolkit.compression.quantization.start import QuantizationStart
from modelpress.toolkit.data.batches import to_device
from modelpress.toolkit.data.image_set import ImageSet
from modelpress.toolkit.data.registry import load_image_set
from modelpress.toolkit.networks.layers import matching, weight_layers, without
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.recipe import (
    DataOptions,
    PackOptions,
    PruneOptions,
    QuantizeOptions,
    Recipe,
    TrainingOptions,
)
from modelpress.toolkit.training.batch_norm import reestimate_batch_norm
from modelpress.toolkit.training.device import Device
from modelpress.toolkit.training.evaluate import top1
from modelpress.toolkit.training.loop import train
from modelpress.toolkit.training.rules import TrainingRule

IMAGE_SHAPE = (3, 32, 32)
TrainingStage = Literal["train", "sparsify", "finetune"]


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
    if state.masks or state.quantizers:
        done = " and ".join(
            word for word, facts in (("pruned", state.masks), ("quantized", state.quantizers)) if facts
        )
        raise InputError(f"the checkpoint is {done} already; start from the dense network, or pack this one")


def check_recipe_fits(state: NetworkState, recipe: Recipe, device: Device) -> None:
    """Refuse what cannot be done with this network before any work starts.

    Raises:
        InputError: A name pattern matches no layer, a layer does not fit the granularity, or the teacher is not usable.
    """
    layers = weight_layers(state.network)
    for pattern in (*recipe.prune.exclude, *recipe.quantize.layers):
        matching(layers, pattern)
    if recipe.prune.sparsity and not recipe.prune.by_penalty:
        choose_masks(prunable_layers(state, recipe.prune), recipe.prune)
    teacher_for(recipe, state, device)


def train_stage(
    state: NetworkState,
    images: ImageSet,
    recipe: Recipe,
    device: Device,
    progress: Progress,
    *,
    stage: TrainingStage,
    teacher: nn.Module | None = None,
    state_path: Path | None = None,
    resume: bool = False,
) -> NetworkState:
    """Train with masks and quantizers in place, by the recipe's options of that stage; zero epochs change nothing.

    Args:
        state: Where training starts; its network is changed.
        images: Training and validation split are used.
        recipe: Its section `stage` says how to train; its schedules act in the finetuning.
        device: The network is there already.
        progress: Told of every epoch.
        stage: Section of the recipe.
        teacher: To distil from, where the recipe asks for it.
        state_path: Where an unfinished training is kept.
        resume: Continue from there.
    """
    options: TrainingOptions = getattr(recipe, stage)
    if options.epochs == 0:
        return state
    started = _with_room_for_masks(state, recipe.prune) if stage == "finetune" else state
    compressed = started.compressed()
    rules = _rules(started, compressed, recipe, stage)
    epochs = train(
        compressed,
        to_device(images.train, images, device.torch_device, padding=options.padding),
        to_device(images.validation, images, device.torch_device),
        options,
        device,
        seed=recipe.seed,
        mirror=images.mirrored,
        progress=progress,
        title=stage,
        identity=_identity(started, teacher if options.distill_weight else None)
        + (recipe.prune.model_dump_json() if rules else "")
        + str(recipe.quantize.after),
        rules=rules,
        teacher=teacher,
        undecayed=compressed.grid_parameters(),
        state_path=state_path,
        resume=resume,
    )
    compressed.settle()
    history = {**state.history, stage: [asdict(epoch) for epoch in epochs]}
    trained = replace(started, grids=compressed.kept_grids(), history=history)
    if stage == "finetune" and recipe.prune.scheduled:
        masks = {name: mask.clone() for name, mask in compressed.masks.items()}
        return _masked(replace(trained, masks={}), masks, recipe.prune)
    return trained


def _rules(
    state: NetworkState, compressed: CompressedNetwork, recipe: Recipe, stage: TrainingStage
) -> list[TrainingRule]:
    """What acts between the steps of this stage."""
    if stage == "sparsify":
        return [ProximalStep(prunable_layers(state, recipe.prune), recipe.prune)]
    if stage == "train":
        return []
    rules: list[TrainingRule] = []
    if recipe.prune.scheduled:
        rules.append(PruningSchedule(compressed, prunable_layers(state, recipe.prune), recipe.prune))
    if recipe.quantize.after and state.quantizers:
        rules.append(QuantizationStart(compressed, recipe.quantize.after))
    return rules


def _with_room_for_masks(state: NetworkState, options: PruneOptions) -> NetworkState:
    """A mask for every layer that a schedule will prune; what was removed before stays removed."""
    if not options.scheduled:
        return state
    open_masks = {
        name: torch.ones_like(weight, dtype=torch.bool)
        for name, weight in prunable_layers(state, options).items()
    }
    return replace(state, masks={**open_masks, **state.masks})


def prune_stage(state: NetworkState, options: PruneOptions) -> NetworkState:
    """Choose masks by magnitude and set the removed weights to zero; what was removed before stays removed.

    Raises:
        InputError: The network is quantized already, no layer is left to prune, or the method needs training.
    """
    _check_unquantized(state)
    prunable = prunable_layers(state, options)
    if options.by_penalty:
        raise InputError(f"prune.method {options.method} removes weights in training; it needs images")
    masks = choose_masks(prunable, options, kept=state.masks) if options.sparsity else {}
    return _masked(state, masks, options)


def sparsify_stage(
    state: NetworkState,
    images: ImageSet,
    recipe: Recipe,
    device: Device,
    progress: Progress,
    *,
    teacher: nn.Module | None = None,
    state_path: Path | None = None,
    resume: bool = False,
) -> NetworkState:
    """Train with the recipe's penalty, then mask what it has set to zero.

    Raises:
        InputError: The network is quantized already, or no layer is left to prune.
    """
    _check_unquantized(state)
    weights = ProximalStep(prunable_layers(state, recipe.prune), recipe.prune)
    if weights.has_enough_zeros():
        progress.note("there are enough zeros already: the penalty does not act")
    trained = train_stage(
        state,
        images,
        recipe,
        device,
        progress,
        stage="sparsify",
        teacher=teacher,
        state_path=state_path,
        resume=resume,
    )
    return _masked(trained, weights.masks(), recipe.prune)  # the same parameters, trained in place


def _check_unquantized(state: NetworkState) -> None:
    if state.quantizers:
        raise InputError("the network is quantized already; prune the one before it")


def prunable_layers(state: NetworkState, options: PruneOptions) -> dict[str, Tensor]:
    """Weights that pruning may remove, by layer name; whole channels of the last layer, the classes, never are.

    Raises:
        InputError: No layer is left.
    """
    prunable = without(weight_layers(state.network), options.exclude)
    if options.granularity == "channel":
        prunable.pop(list(weight_layers(state.network))[-1], None)
    if not prunable:
        raise InputError("prune.exclude leaves no layer to prune")
    return prunable


def _masked(state: NetworkState, masks: dict[str, Tensor], options: PruneOptions) -> NetworkState:
    masks = masks | {
        name: mask & masks[name] if name in masks else mask for name, mask in state.masks.items()
    }
    pruned = replace(state, masks=masks)
    pruned.compressed().settle()
    prunable = prunable_layers(state, options)
    removed = sum(int((~masks[name]).sum()) for name in prunable if name in masks)
    summary = {
        "method": options.method,
        "granularity": options.granularity,
        "schedule": options.schedule,
        "asked_for": options.sparsity,
        "prunable": sum(w.numel() for w in prunable.values()),
        "removed": removed,
        "layers": {name: sparsity_of(mask.cpu().numpy()) for name, mask in masks.items()},
    }
    if options.by_penalty:
        summary |= {"penalty": options.penalty, "penalty_warmup": options.penalty_warmup}
    return replace(pruned, history={**state.history, "prune": summary})


def removed_weights(state: NetworkState) -> str:
    """What pruning did, in a line."""
    summary = state.history["prune"]
    share = summary["removed"] / max(summary["prunable"], 1)
    line = f"{summary['removed']:,} of {summary['prunable']:,} prunable weights removed ({share:.2%})"
    if "penalty" in summary and summary["removed"] < round(summary["asked_for"] * summary["prunable"]):
        line += f"; short of the {summary['asked_for']:.2%} asked for: raise prune.penalty or sparsify.epochs"
    return line


def quantizer_stage(state: NetworkState, options: QuantizeOptions) -> NetworkState:
    """Give every layer its quantizer, and those grids that do not follow the weights their first values."""
    bits: dict[str, int | str] = dict.fromkeys(weight_layers(state.network), options.bits)
    for pattern, width in options.layers.items():
        bits.update(dict.fromkeys(matching(bits, pattern), width))
    quantizers = {
        name: QuantizerSpec(
            int(width),
            options.symmetric,
            options.per_channel,
            options.zero_point,
            options.range,
            options.learned,
        )
        for name, width in bits.items()
        if width != "float"
    }
    quantized = replace(state, quantizers=quantizers, grids={}, history={**state.history, "quantize": bits})
    return replace(quantized, grids=quantized.compressed().kept_grids())


def batch_norm_stage(state: NetworkState, recipe: Recipe, images: ImageSet, device: Device) -> NetworkState:
    """Measure batch-norm statistics anew with the compressed weights, if the recipe asks for it."""
    if not recipe.quantize.batch_norm_images:
        return state
    n_images = reestimate_batch_norm(
        state.compressed(),
        to_device(images.train, images, device.torch_device, padding=recipe.finetune.padding),
        n_images=recipe.quantize.batch_norm_images,
        seed=recipe.seed,
        mirror=images.mirrored,
    )
    return replace(state, history={**state.history, "batch_norm": {"images": n_images}})


def teacher_for(recipe: Recipe, dense: NetworkState, device: Device) -> nn.Module | None:
    """The network to distil from, in evaluation mode: the recipe's, or a copy of `dense`; None if none is needed.

    Raises:
        InputError: The recipe's teacher is not readable, or has other classes; or the network is pruned already.
    """
    if not (recipe.finetune.distill_weight or recipe.sparsify.distill_weight):
        return None
    if recipe.model.teacher is None:
        if dense.masks:
            raise InputError(
                "the network is pruned already, and so is no teacher: name the dense one with "
                "--set model.teacher=FILE, or set distill_weight to 0"
            )
        network = copy.deepcopy(dense.compressed())
    else:
        loaded = load_network(Path(recipe.model.teacher), recipe.model)
        network = loaded.compressed()
        classes = [list(weight_layers(s.network).values())[-1].shape[0] for s in (loaded, dense)]
        if classes[0] != classes[1]:
            raise InputError(
                f"teacher {recipe.model.teacher} has {classes[0]} classes, the network {classes[1]}: "
                "choose one trained on the same data"
            )
    device.place(network)
    return network.requires_grad_(False).eval()


def validation_top1(network: CompressedNetwork, images: ImageSet, device: Device) -> float | None:
    """Accuracy on the held-out split; None without one."""
    if not len(images.validation):
        return None
    return top1(network, to_device(images.validation, images, device.torch_device))


def freeze_stage(state: NetworkState) -> QuantizedModel:
    """Fold batch norm, take the codes, describe the origin."""
    network = state.compressed()
    network.network.eval()
    n_classes = list(weight_layers(network.network).values())[-1].shape[0]
    return freeze(
        network,
        input_shape=IMAGE_SHAPE,
        n_classes=n_classes,
        metadata=_provenance(state),
        half_parameters=_parameter_precision(state) == "float16",
    )


def half_parameters_stage(
    state: NetworkState, options: PackOptions, images: ImageSet, device: Device, progress: Progress
) -> NetworkState:
    """Scales and biases in float16, if the recipe allows it and no accuracy is lost on the held-out split.

    Both accuracies go into the history; without a held-out split nothing can be judged and nothing changes.
    """
    network = copy.deepcopy(state.network)
    if not options.float16_parameters or not round_parameters_to_half(network):
        return state
    before = validation_top1(state.compressed(), images, device)
    if before is None:
        progress.note("scales and biases stay in float32: there are no validation images to judge float16 by")
        return state
    halved = replace(state, network=network)
    after = validation_top1(halved.compressed(), images, device)
    assert after is not None  # the same split
    kept = "float16" if after >= before else "float32"
    progress.note(f"scales and biases in {kept}: validation {before:.2%} in float32, {after:.2%} in float16")
    facts = {"precision": kept, "validation_top1": {"float32": before, "float16": after}}
    return replace(halved if kept == "float16" else state, history={**state.history, "parameters": facts})


def _parameter_precision(state: NetworkState) -> str:
    """Of scales and biases in the file."""
    return str(state.history.get("parameters", {}).get("precision", "float32"))


def _identity(state: NetworkState, teacher: nn.Module | None) -> str:
    """SHA-256 of everything a training starts from, so that only the same one is resumed."""
    digest = hashlib.sha256(repr((state.model.arch, state.model.shortcut, state.contract)).encode())
    digest.update(repr(sorted(state.quantizers.items())).encode())
    grids = [(name + key, value) for name, grid in sorted(state.grids.items()) for key, value in grid.items()]
    learned = {} if teacher is None else teacher.state_dict()
    for name, tensor in (
        *state.network.state_dict().items(),
        *sorted(state.masks.items()),
        *grids,
        *learned.items(),
    ):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _provenance(state: NetworkState) -> dict[str, str]:
    """The `metadata_props` of every file: what the model is and what input it expects."""
    facts: dict[str, object] = {
        "modelpress.version": version("modelpress"),
        "modelpress.arch": f"{state.model.arch}, shortcut {state.model.shortcut}",
    }
    if state.masks:
        prune = state.history.get("prune", {})
        facts["modelpress.prune"] = {
            key: prune[key] for key in ("method", "prunable", "removed") if key in prune
        }
    if state.quantizers:
        kinds = {(q.bits, q.symmetric, q.per_channel) for q in state.quantizers.values()}
        facts["modelpress.quantize"] = [
            {"bits": bits, "symmetric": symmetric, "per_channel": per_channel}
            for bits, symmetric, per_channel in sorted(kinds)
        ]
    if _parameter_precision(state) != "float32":
        facts["modelpress.parameters"] = _parameter_precision(state)
    if state.contract is not None:
        facts["modelpress.dataset"] = state.contract.dataset
        facts["modelpress.classes"] = state.contract.class_names
        facts["modelpress.input"] = {
            "layout": "NCHW, RGB, (pixel / 255 - mean) / std",
            "mean": state.contract.mean,
            "std": state.contract.std,
        }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
