"""Pass: train with a penalty that sets weights exactly to zero, and remove those."""

from modelpress.toolkit.compression.fitting import fit
from modelpress.toolkit.compression.pruning.proximal import ProximalStep
from modelpress.toolkit.compression.pruning.removal import (
    check_unquantized,
    prunable_layers,
    removed_weights,
    with_masks,
)
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import Work


def sparsify(state: NetworkState, work: Work) -> NetworkState:
    """Train by the recipe's section `sparsify` with the penalty of `prune`, then mask what it has set to zero.

    Raises:
        InputError: The network is quantized already, or no layer is left to prune.
        Interrupted: Stopped on request.
    """
    work.progress.stage("prune")
    check_unquantized(state)

    prune = work.recipe.prune
    penalty = ProximalStep(prunable_layers(state, prune), prune)
    if penalty.has_enough_zeros():
        work.progress.note("there are enough zeros already: the penalty does not act")
    trained = fit(state, state.compressed(), work, "sparsify", rules=[penalty])

    pruned = with_masks(trained, penalty.masks(), prune)  # of the same parameters, trained in place
    work.keep("sparsify", pruned)
    work.progress.note(removed_weights(pruned))
    work.watch("pruned", pruned)
    return pruned
