"""Magnitude pruning: the weights closest to zero go, exactly as many as asked for.

Source: Han, Pool, Tran and Dally 2015, "Learning both Weights and Connections", arXiv:1506.02626.
"""

import torch
from torch import Tensor

from export.errors import InputError
from toolkit.sparse_regression.prox import largest


def prune_global(weights: dict[str, Tensor], *, sparsity: float) -> dict[str, Tensor]:
    """Masks that remove the smallest magnitudes over all tensors together.

    Args:
        weights: Any shapes, by layer name.
        sparsity: Fraction removed, 0 to 1; exactly ``round(sparsity * n)`` weights in all.

    Returns:
        Boolean masks, true = kept, same shapes. Of equal magnitudes the earlier weight goes first.

    Raises:
        InputError: `sparsity` is outside 0..1.

    Example:
        >>> prune_global({"a": torch.tensor([1.0, -3.0]), "b": torch.tensor([2.0, 4.0])}, sparsity=0.5)
        {'a': tensor([False,  True]), 'b': tensor([False,  True])}
    """
    _check_sparsity(sparsity)
    if not weights:
        return {}
    kept = _kept(torch.cat([w.flatten() for w in weights.values()]), sparsity=sparsity)
    parts = kept.split([w.numel() for w in weights.values()])
    return {name: part.view_as(w) for (name, w), part in zip(weights.items(), parts, strict=True)}


def prune_per_layer(weights: dict[str, Tensor], *, sparsity: float) -> dict[str, Tensor]:
    """Masks that remove the same fraction of every tensor; otherwise as `prune_global`."""
    _check_sparsity(sparsity)
    return {name: _kept(w, sparsity=sparsity) for name, w in weights.items()}


METHODS = {"global-magnitude": prune_global, "layer-magnitude": prune_per_layer}


def _kept(weight: Tensor, *, sparsity: float) -> Tensor:
    return largest(weight.detach(), weight.numel() - round(sparsity * weight.numel()))


def _check_sparsity(sparsity: float) -> None:
    if not 0 <= sparsity <= 1:
        raise InputError(f"sparsity is {sparsity}; expected a fraction from 0 to 1")
