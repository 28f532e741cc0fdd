"""Which weights go together: single ones, whole output channels, or N of every M."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from modelpress.export.errors import InputError
from modelpress.toolkit.compression.pruning.channel_groups import prune_groups
from modelpress.toolkit.compression.pruning.coupling import Coupling
from modelpress.toolkit.compression.pruning.magnitude import (
    check_sparsity,
    prune_below_percentile,
    prune_global,
    prune_per_layer,
    ranks,
)
from modelpress.toolkit.recipe import PruneOptions

Masks = dict[str, Tensor]
_SINGLE_WEIGHTS = {
    "global-magnitude": prune_global,
    "layer-magnitude": prune_per_layer,
    "layer-percentile": prune_below_percentile,
}

_ROUNDING = 1e-4  # of channels in a group: a recipe may write 0.666667 for two of three


def choose_masks(
    weights: Mapping[str, Tensor],
    options: PruneOptions,
    *,
    sparsity: float | None = None,
    kept: Mapping[str, Tensor] | None = None,
    coupling: Coupling | None = None,
) -> Masks:
    """Masks by magnitude at the granularity of the options.

    Args:
        weights: By layer name.
        options: Method (one threshold for all layers, or the same share of each) and granularity.
        sparsity: Fraction removed; None takes that of the options.
        kept: Masks of an earlier pruning; what they removed stays removed.
        coupling: Which channels go together, where whole ones are removed; None: each layer's stand alone.

    Returns:
        Boolean masks, true = kept. Single weights: exactly ``round(sparsity * n)`` are removed, per layer or in all.
        Channels: as many whole ones as fit into that. N of M: never fewer than N are kept. More than that only where
        `kept` asks for it.

    Raises:
        InputError: A layer does not fit an N:M pattern, or `sparsity` is outside 0..1.
    """
    share = options.sparsity if sparsity is None else sparsity
    check_sparsity(share)

    # a share below that of an earlier pruning would bring removed weights back
    masks = _chosen(weights, options, share, kept, coupling)
    earlier = kept or {}
    return {name: mask & earlier[name] if name in earlier else mask for name, mask in masks.items()}


def _chosen(
    weights: Mapping[str, Tensor],
    options: PruneOptions,
    share: float,
    kept: Mapping[str, Tensor] | None,
    coupling: Coupling | None,
) -> Masks:
    globally = options.method == "global-magnitude"
    if options.granularity == "weight":
        return _SINGLE_WEIGHTS[options.method](weights, sparsity=share, kept=kept)
    if options.granularity == "channel" and coupling is not None:
        return prune_groups(
            weights, coupling, sparsity=share, globally=globally, multiple=options.multiple, kept=kept
        )
    if options.granularity == "channel":
        return prune_channels(weights, sparsity=share, globally=globally, kept=kept)

    n, m = pattern_of(options.granularity)
    n = max(n, m - int(share * m + _ROUNDING))
    return {name: keep_n_of_m(ranks(name, w, kept), n, m, layer=name) for name, w in weights.items()}


def prune_channels(
    weights: Mapping[str, Tensor],
    *,
    sparsity: float,
    globally: bool,
    kept: Mapping[str, Tensor] | None = None,
) -> Masks:
    """Masks that remove the output channels of smallest root mean square.

    Args:
        weights: First axis: output channels.
        sparsity: Of all weights; as many whole channels go as fit into it.
        globally: Rank the channels of all layers together, or remove the same share of each layer's.
        kept: Masks of an earlier pruning; channels that they removed go first.

    Source: Li et al. 2017, "Pruning Filters for Efficient ConvNets", arXiv:1608.08710, with the root mean square in
    place of the sum, so that layers of different sizes compare.

    Example:
        >>> w = {"a": torch.tensor([[1.0, 1.0], [3.0, 0.0], [0.1, 0.1]])}
        >>> prune_channels(w, sparsity=0.5, globally=True)["a"][:, 0]
        tensor([ True,  True, False])
    """
    check_sparsity(sparsity)
    sizes = {name: _channel_sizes(name, w, kept) for name, w in weights.items()}
    widths = {name: w[0].numel() for name, w in weights.items()}

    if globally:
        stays = _whole_channels(sizes, widths, sparsity=sparsity)
    else:
        stays = {}
        for name, size in sizes.items():
            stays |= _whole_channels({name: size}, widths, sparsity=sparsity)

    return {
        name: stays[name].reshape(-1, *[1] * (w.ndim - 1)).expand_as(w).clone() for name, w in weights.items()
    }


def _channel_sizes(name: str, weight: Tensor, kept: Mapping[str, Tensor] | None) -> Tensor:
    """Mean square of every channel, shape ``(out,)``; channels that are removed altogether rank below kept zeros."""
    if kept is None or name not in kept:
        return weight.detach().flatten(1).square().mean(dim=1)

    size = torch.where(kept[name], weight.detach(), 0.0).flatten(1).square().mean(dim=1)
    return torch.where(kept[name].flatten(1).any(dim=1), size, -1.0)


def _whole_channels(sizes: Mapping[str, Tensor], widths: Mapping[str, int], *, sparsity: float) -> Masks:
    """True for the channels that stay: the smallest of all layers go in order, up to the first that does not fit."""
    width = torch.cat([torch.full_like(s, widths[name], dtype=torch.float64) for name, s in sizes.items()])
    order = torch.argsort(torch.cat(list(sizes.values())), stable=True)

    removed_so_far = torch.empty_like(width)
    removed_so_far[order] = torch.cumsum(width[order], dim=0)
    stays = removed_so_far > round(sparsity * float(width.sum()))
    return dict(zip(sizes, stays.split([len(s) for s in sizes.values()]), strict=True))


def keep_n_of_m(weight: Tensor, n: int, m: int, *, layer: str = "weight") -> Tensor:
    """Mask of the n largest magnitudes of every m neighbouring input channels.

    Args:
        weight: Shape ``(out, in, ...)``; groups run along the second axis, at every kernel position.
        n: Kept of each group; of equal magnitudes the later.
        m: Size of a group.
        layer: For the error.

    Raises:
        InputError: The input channels are no multiple of m.

    Source: Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks", arXiv:2104.08378.

    Example:
        >>> keep_n_of_m(torch.tensor([[1.0, -3.0, 2.0, 0.5]]), 2, 4)
        tensor([[False,  True,  True, False]])
    """
    if weight.shape[1] % m:
        raise InputError(
            f"{layer} has {weight.shape[1]} input channels, which {m} does not divide: "
            f"leave it out with prune.exclude, or choose another pattern"
        )

    groups = weight.detach().abs().movedim(1, -1).reshape(-1, m)
    rank = torch.argsort(torch.argsort(groups, dim=1, stable=True), dim=1)  # 0: the smallest of its group
    shape = (weight.shape[0], *weight.shape[2:], weight.shape[1])
    return (rank >= m - n).reshape(shape).movedim(-1, 1).contiguous()


def pattern_of(granularity: str) -> tuple[int, int]:
    """N and M of ``N:M``.

    Raises:
        InputError: It is no such pattern, or not 0 < N < M.

    Example:
        >>> pattern_of("2:4")
        (2, 4)
    """
    match = re.fullmatch(r"(\d+):(\d+)", granularity)
    if match is None or not 0 < int(match[1]) < int(match[2]):
        raise InputError(f"granularity {granularity!r} is unknown; choose weight, channel, or N:M as in 2:4")
    return int(match[1]), int(match[2])
