"""Pass: remove the weights closest to zero, at once.

Source: Han, Pool, Tran and Dally 2015, arXiv:1506.02626; what a granularity adds is in `pruning.granularity`.
"""

from collections.abc import Callable
from functools import partial

from modelpress.export.errors import InputError
from modelpress.toolkit.compression.passes.quantize import with_quantizers
from modelpress.toolkit.compression.pruning.budget import within_budget
from modelpress.toolkit.compression.pruning.coupling import coupling_for, coupling_of
from modelpress.toolkit.compression.pruning.granularity import choose_masks
from modelpress.toolkit.compression.pruning.removal import (
    check_unquantized,
    prunable_layers,
    removed_weights,
    with_masks,
)
from modelpress.toolkit.compression.pruning.silence import silence
from modelpress.toolkit.compression.rate.file_size import file_size
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import Work
from modelpress.toolkit.recipe import PackOptions, PruneOptions, Recipe


def prune(state: NetworkState, work: Work) -> NetworkState:
    """Prune by magnitude, as the recipe's section `prune` says.

    Raises:
        InputError: See `pruned_by_magnitude`.
    """
    work.progress.stage("prune")
    pruned = pruned_by_magnitude(state, work.recipe.prune, size_of=size_for(work.recipe))
    work.progress.note(removed_weights(pruned))
    work.watch("pruned", pruned)
    return pruned


def pruned_by_magnitude(
    state: NetworkState, options: PruneOptions, *, size_of: Callable[[NetworkState], int] | None = None
) -> NetworkState:
    """Choose masks by magnitude and set the removed weights to zero; what was removed before stays removed.

    Needs no images. The weights are changed in place.

    Args:
        state: What to prune.
        options: How.
        size_of: Bytes of the file that a network would make, for a budget of bytes; by default as floats.

    Raises:
        InputError: The network is quantized already, nothing is left to prune, or the method needs training.
        ModelError: Channels are to be removed, and the network cannot be drawn.
    """
    check_unquantized(state)
    prunable = prunable_layers(state, options)
    if options.by_penalty:
        raise InputError(f"prune.method {options.method} removes weights in training; it needs images")

    if options.budget is not None:
        return pruned_to_budget(state, options, size_of or size_for(None))
    if not options.sparsity:
        return with_masks(state, {}, options)

    coupling = coupling_for(state, options)
    masks = choose_masks(prunable, options, kept=state.masks, coupling=coupling)
    pruned = with_masks(state, masks, options)
    if coupling is not None:
        silence(pruned.network, coupling, pruned.masks)
    return pruned


def pruned_to_budget(
    state: NetworkState, options: PruneOptions, size_of: Callable[[NetworkState], int]
) -> NetworkState:
    """Remove the channels that a budget asks for, in place; see `within_budget`.

    Raises:
        InputError: It cannot be met.
        ModelError: The network cannot be drawn.
    """
    coupling = coupling_of(state)
    met = within_budget(state, prunable_layers(state, options), options, coupling, size_of)
    pruned = with_masks(state, met.masks, options, budget=met.found)
    silence(pruned.network, coupling, pruned.masks)
    return pruned


def size_for(recipe: Recipe | None) -> Callable[[NetworkState], int]:
    """Bytes of the file that a network would make on the grids of a recipe; without one, as floats."""
    return partial(_file_size, recipe=recipe)


def _file_size(state: NetworkState, *, recipe: Recipe | None) -> int:
    if recipe is None:
        return file_size(state, state.compressed(), PackOptions())
    quantized = with_quantizers(state, recipe.quantize)
    return file_size(quantized, quantized.compressed(), recipe.pack)
