"""Pass: remove the weights closest to zero, at once.

Source: Han, Pool, Tran and Dally 2015, arXiv:1506.02626; what a granularity adds is in `pruning.granularity`.
"""

from modelpress.export.errors import InputError
from modelpress.toolkit.compression.pruning.coupling import coupling_for
from modelpress.toolkit.compression.pruning.granularity import choose_masks
from modelpress.toolkit.compression.pruning.removal import (
    check_unquantized,
    prunable_layers,
    removed_weights,
    with_masks,
)
from modelpress.toolkit.compression.pruning.silence import silence
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import Work
from modelpress.toolkit.recipe import PruneOptions


def prune(state: NetworkState, work: Work) -> NetworkState:
    """Prune by magnitude, as the recipe's section `prune` says.

    Raises:
        InputError: See `pruned_by_magnitude`.
    """
    work.progress.stage("prune")
    pruned = pruned_by_magnitude(state, work.recipe.prune)
    work.progress.note(removed_weights(pruned))
    work.watch("pruned", pruned)
    return pruned


def pruned_by_magnitude(state: NetworkState, options: PruneOptions) -> NetworkState:
    """Choose masks by magnitude and set the removed weights to zero; what was removed before stays removed.

    Needs no images. The weights are changed in place.

    Raises:
        InputError: The network is quantized already, nothing is left to prune, or the method needs training.
        ModelError: Channels are to be removed, and the network cannot be drawn.
    """
    check_unquantized(state)
    prunable = prunable_layers(state, options)
    if options.by_penalty:
        raise InputError(f"prune.method {options.method} removes weights in training; it needs images")

    if not options.sparsity:
        return with_masks(state, {}, options)
    coupling = coupling_for(state, options)
    masks = choose_masks(prunable, options, kept=state.masks, coupling=coupling)
    pruned = with_masks(state, masks, options)
    if coupling is not None:
        silence(pruned.network, coupling, pruned.masks)
    return pruned
