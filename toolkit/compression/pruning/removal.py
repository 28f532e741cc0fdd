"""What pruning may remove of a network, and how a removal is carried out and recorded."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from modelpress.benchmarks.measures.sparsity import sparsity_of
from modelpress.export.errors import InputError
from modelpress.toolkit.compression.choosing import layers_left
from modelpress.toolkit.compression.pruning.subgradient import SMALL, count_small
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.networks.layers import weight_layers
from modelpress.toolkit.recipe import PruneOptions
from modelpress.toolkit.recipe_sections import ROLE

_MUCH = 0.8  # of the sparsity asked for; whole channels rarely fit exactly


def check_unquantized(state: NetworkState) -> None:
    """Refuse to prune a network whose weights lie on a grid.

    Raises:
        InputError: They do.
    """
    if state.quantizers:
        raise InputError("the network is quantized already; prune the one before it")


def prunable_layers(state: NetworkState, options: PruneOptions) -> dict[str, Tensor]:
    """Weights that pruning may remove, by layer name; whole channels of the last layer, the classes, never are.

    Raises:
        InputError: No layer is left.
    """
    # the projection of a shortcut ends in the channels of its stage, and goes with them
    together = options.of_channels
    exclude = [pattern for pattern in options.exclude if not (together and pattern == f"{ROLE}shortcut")]
    prunable = layers_left(state, weight_layers(state.network), exclude)
    if options.of_channels:
        prunable.pop(list(weight_layers(state.network))[-1], None)
    if not prunable:
        raise InputError("prune.exclude leaves no layer to prune")
    return prunable


def with_masks(
    state: NetworkState,
    masks: Mapping[str, Tensor],
    options: PruneOptions,
    *,
    budget: Mapping[str, object] | None = None,
) -> NetworkState:
    """Set what the masks remove to zero, and record it; what was removed before stays removed.

    Args:
        state: Its network is changed.
        masks: By layer, true = kept.
        options: What was asked for, for the record.
        budget: What was found for it, likewise.
    """
    # a layer pruned before keeps both removals; one without a new mask keeps its old one
    joined = dict(masks) | {
        name: mask & masks[name] if name in masks else mask for name, mask in state.masks.items()
    }
    pruned = replace(state, masks=joined)
    pruned.compressed().settle()
    summary = _summary(pruned, options) | ({} if budget is None else {"budget": dict(budget)})
    return replace(pruned, history={**state.history, "prune": summary})


def _summary(pruned: NetworkState, options: PruneOptions) -> dict[str, object]:
    masks, prunable = pruned.masks, prunable_layers(pruned, options)
    summary: dict[str, object] = {
        "method": options.method,
        "granularity": options.granularity,
        "schedule": options.schedule,
        "asked_for": None if options.budget is not None else options.sparsity,
        "prunable": sum(weight.numel() for weight in prunable.values()),
        "removed": sum(int((~masks[name]).sum()) for name in prunable if name in masks),
        "layers": {name: sparsity_of(mask.cpu().numpy()) for name, mask in masks.items()},
    }

    if options.by_penalty:
        summary |= {
            "penalty": options.penalty,
            "penalty_warmup": options.penalty_warmup,
            "small": count_small(prunable),
        }
    return summary


def removed_weights(state: NetworkState) -> str:
    """What pruning did, in a line."""
    summary = state.history["prune"]
    share = summary["removed"] / max(summary["prunable"], 1)
    line = f"{summary['removed']:,} of {summary['prunable']:,} prunable weights removed ({share:.2%})"
    if "budget" in summary:
        asked_for = ", ".join(f"{k} {v}" for k, v in summary["budget"].items() if k != "found")
        return f"{line}; {summary['budget']['found']:.3f}x for the budget {asked_for}"

    if summary["method"] == "l1-subgradient":
        line += (
            f"; {summary['small']:,} more are at most {SMALL:.0%} of the largest in their layer, and not zero"
        )
    elif "penalty" in summary and summary["removed"] < round(summary["asked_for"] * summary["prunable"]):
        line += f"; short of the {summary['asked_for']:.2%} asked for: raise prune.penalty or sparsify.epochs"
    elif summary["granularity"] == "channel" and share < _MUCH * summary["asked_for"]:
        line += (
            f"; short of the {summary['asked_for']:.2%} asked for: other channels have to stay, or do not fit into "
            "blocks of prune.multiple"
        )
    return line
