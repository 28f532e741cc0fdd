"""Magnitude pruning: the weights closest to zero go, exactly as many as asked for.

Source: Han, Pool, Tran and Dally 2015, "Learning both Weights and Connections", arXiv:1506.02626.
"""

from collections.abc import Mapping
from math import ceil

import torch
from torch import Tensor

from modelpress.export.errors import InputError
from modelpress.toolkit.sparse_regression.prox import largest

_ROUNDING = 1e-9  # 0.7 * 10 is above 7


def prune_global(
    weights: Mapping[str, Tensor], *, sparsity: float, kept: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Masks that remove the smallest magnitudes over all tensors together.

    Args:
        weights: Any shapes, by layer name.
        sparsity: Fraction removed, 0 to 1; exactly ``round(sparsity * n)`` weights in all.
        kept: Masks of an earlier pruning; what they removed goes first, whatever its value.

    Returns:
        Boolean masks, true = kept, same shapes. Of equal magnitudes the earlier weight goes first.

    Raises:
        InputError: `sparsity` is outside 0..1.

    Example:
        >>> prune_global({"a": torch.tensor([1.0, -3.0]), "b": torch.tensor([2.0, 4.0])}, sparsity=0.5)
        {'a': tensor([False,  True]), 'b': tensor([False,  True])}
    """
    check_sparsity(sparsity)
    if not weights:
        return {}

    flat = torch.cat([ranks(name, w, kept).flatten() for name, w in weights.items()])
    chosen = _largest_share(flat, sparsity=sparsity)
    parts = chosen.split([w.numel() for w in weights.values()])
    return {name: part.view_as(w) for (name, w), part in zip(weights.items(), parts, strict=True)}


def prune_per_layer(
    weights: Mapping[str, Tensor], *, sparsity: float, kept: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Masks that remove the same fraction of every tensor; otherwise as `prune_global`."""
    check_sparsity(sparsity)
    return {name: _largest_share(ranks(name, w, kept), sparsity=sparsity) for name, w in weights.items()}


def prune_below_percentile(
    weights: Mapping[str, Tensor], *, sparsity: float, kept: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Masks that remove what lies below the percentile of every tensor's magnitudes, as `numpy.percentile` has it.

    That are ``ceil(sparsity * (n - 1))`` weights, where `prune_per_layer` removes ``round(sparsity * n)``: at most one
    weight apart. In a network that is pruned until it hardly works, one weight can be worth a point of accuracy.

    Example:
        >>> w = {"a": torch.arange(1.0, 11.0)}
        >>> prune_below_percentile(w, sparsity=0.5)["a"].sum(), prune_below_percentile(w, sparsity=0.42)["a"].sum()
        (tensor(5), tensor(6))
    """
    check_sparsity(sparsity)
    return {
        name: largest(ranks(name, w, kept), w.numel() - ceil(sparsity * (w.numel() - 1) - _ROUNDING))
        for name, w in weights.items()
    }


def check_sparsity(sparsity: float) -> None:
    """Raise InputError where it is no fraction."""
    if not 0 <= sparsity <= 1:
        raise InputError(f"sparsity is {sparsity}; expected a fraction from 0 to 1")


def ranks(name: str, weight: Tensor, kept: Mapping[str, Tensor] | None) -> Tensor:
    """Magnitudes; what was removed before ranks below a kept zero."""
    magnitude = weight.detach().abs()
    if kept is None or name not in kept:
        return magnitude
    return torch.where(kept[name], magnitude + torch.finfo(magnitude.dtype).tiny, 0.0)


def _largest_share(magnitudes: Tensor, *, sparsity: float) -> Tensor:
    n = magnitudes.numel()
    return largest(magnitudes, n - round(sparsity * n))
