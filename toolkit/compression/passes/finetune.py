"""Pass: train with masks held and weights on their grids; on a schedule, pruning or quantizing on the way."""

from dataclasses import replace
from functools import partial

import torch

from modelpress.toolkit.compression.fitting import fit
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.passes.quantization_start import QuantizationStart
from modelpress.toolkit.compression.pruning.coupling import coupling_for
from modelpress.toolkit.compression.pruning.removal import prunable_layers, removed_weights, with_masks
from modelpress.toolkit.compression.pruning.schedule import PruningSchedule
from modelpress.toolkit.compression.pruning.silence import Silence
from modelpress.toolkit.compression.rate.file_size import file_size
from modelpress.toolkit.compression.rate.price import RatePrice
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import Work
from modelpress.toolkit.recipe import PruneOptions, Recipe
from modelpress.toolkit.training.rules import TrainingRule


def finetune(state: NetworkState, work: Work) -> NetworkState:
    """Train by the recipe's section `finetune`, with its schedules of `prune` and `quantize`.

    Raises:
        Interrupted: Stopped on request.
    """
    prune = work.recipe.prune
    if work.recipe.finetune.epochs == 0:
        if work.recipe.finetune.target_bytes is not None:
            work.progress.note(
                "finetune.target_bytes acts while the network is trained: without epochs it does not"
            )
        return state  # a recipe with a schedule has epochs for it

    started = with_room_for_masks(state, prune) if prune.scheduled else state
    network = started.compressed()
    rules = rules_of(started, network, work.recipe)
    trained = fit(started, network, work, "finetune", rules=rules)
    for rule in rules:
        if isinstance(rule, Silence):
            rule.renew()  # averages of weights remember what was before
    _tell_of_size(started, network, work)
    if not prune.scheduled:
        return trained

    masks = {name: mask.clone() for name, mask in network.masks.items()}
    pruned = with_masks(replace(trained, masks={}), masks, prune)
    work.progress.note(removed_weights(pruned))
    return pruned


def _tell_of_size(state: NetworkState, network: CompressedNetwork, work: Work) -> None:
    """A note where the file is larger than was asked for."""
    target = work.recipe.finetune.target_bytes
    if target is None:
        return

    size = file_size(state, network, work.recipe.pack)
    if size > target:
        work.progress.note(
            f"the file takes {size:,} bytes and not the {target:,} of finetune.target_bytes: train longer, raise "
            "finetune.rate_ramp, or start from fewer bits or more zeros"
        )


def with_room_for_masks(state: NetworkState, options: PruneOptions) -> NetworkState:
    """A mask for every layer that a schedule will prune; what was removed before stays removed."""
    open_masks = {
        name: torch.ones_like(weight, dtype=torch.bool)
        for name, weight in prunable_layers(state, options).items()
    }
    return replace(state, masks={**open_masks, **state.masks})


def rules_of(state: NetworkState, network: CompressedNetwork, recipe: Recipe) -> list[TrainingRule]:
    """What acts between the steps: pruning first, so that new grids are taken from what is left."""
    rules: list[TrainingRule] = []
    coupling = coupling_for(state, recipe.prune)
    silent = None if coupling is None else Silence(network, coupling)
    if recipe.prune.scheduled:
        rules.append(PruningSchedule(network, prunable_layers(state, recipe.prune), recipe.prune, silent))
    if silent is not None:
        rules.append(silent)
    if recipe.quantize.after and state.quantizers:
        rules.append(QuantizationStart(network, recipe.quantize.after, renew=not recipe.finetune.priced))
    if recipe.finetune.priced:
        rules.append(RatePrice(network, recipe.finetune, partial(file_size, state, network, recipe.pack)))
    return rules
