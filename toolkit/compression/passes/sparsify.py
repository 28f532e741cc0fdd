"""Pass: train with a penalty that makes weights zero, and remove those."""

import copy
from dataclasses import replace

import torch

from modelpress.toolkit.compression.fitting import fit
from modelpress.toolkit.compression.passes.prune import pruned_to_budget, size_for
from modelpress.toolkit.compression.pruning.coupling import coupling_for
from modelpress.toolkit.compression.pruning.lasso_groups import ChannelGroups
from modelpress.toolkit.compression.pruning.proximal import ProximalStep
from modelpress.toolkit.compression.pruning.removal import (
    check_unquantized,
    prunable_layers,
    removed_weights,
    with_masks,
)
from modelpress.toolkit.compression.pruning.rescaling import lengths, normalised_layers_of, restore_lengths
from modelpress.toolkit.compression.pruning.silence import silence
from modelpress.toolkit.compression.pruning.subgradient import SubgradientPenalty
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import Work
from modelpress.toolkit.recipe import PruneOptions


def sparsify(state: NetworkState, work: Work) -> NetworkState:
    """Train by the recipe's section `sparsify` with the penalty of `prune`, then mask what it has set to zero.

    Raises:
        InputError: The network is quantized already, or no layer is left to prune.
        Interrupted: Stopped on request.
    """
    work.progress.stage("prune")
    check_unquantized(state)

    options = work.recipe.prune
    prunable, coupling = prunable_layers(state, options), coupling_for(state, options)
    penalty: ProximalStep | SubgradientPenalty
    if options.method == "l1-subgradient":
        penalty = SubgradientPenalty(prunable, options)
    else:
        groups = None if coupling is None else ChannelGroups.coupled(prunable, coupling, state.network)
        # channels of a layer compete for its length, which means nothing itself
        steady = set() if groups is None else normalised_layers_of(state)
        penalty = ProximalStep(prunable, _until_the_budget(state, work), groups, steady=steady)
        if penalty.has_enough_zeros():
            work.progress.note("there are enough zeros already: the penalty does not act")
    before = lengths(state.network)
    trained = fit(state, state.compressed(), work, "sparsify", rules=[penalty])
    factors = restore_lengths(trained, before)
    if factors:
        work.progress.note(
            f"weights in front of {len(factors)} batch norms have their length again, up to "
            f"{max(factors.values()):.3g} times that which the penalty left"
        )

    # a budget is kept to by the choice at the end, among groups that the penalty has ordered
    if options.budget is not None:
        pruned = pruned_to_budget(trained, options, size_for(work.recipe))
    else:
        pruned = with_masks(trained, penalty.masks(), options)  # of the same parameters, trained in place
    if coupling is not None:
        silence(pruned.network, coupling, pruned.masks)
    work.keep("sparsify", pruned)
    work.progress.note(removed_weights(pruned))
    work.watch("pruned", pruned)
    return pruned


def _until_the_budget(state: NetworkState, work: Work) -> PruneOptions:
    """The options with the sparsity that a budget would ask for now."""
    options = work.recipe.prune
    if options.budget is None:
        return options
    masks = pruned_to_budget(
        replace(state, network=copy.deepcopy(state.network)), options, size_for(work.recipe)
    ).masks
    removed = sum(int((~mask).sum()) for mask in masks.values())
    return options.model_copy(update={"sparsity": removed / sum(map(torch.numel, masks.values()))})
