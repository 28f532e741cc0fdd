"""Weights that somebody else's pruning removed: exact zeros, too many for chance."""

from collections.abc import Mapping

from torch import Tensor

_LEAST_SHARE, _LEAST_COUNT = (
    0.01,
    16,
)  # training leaves hardly a weight at exactly 0.0; rounding to half a few


def masks_of_zeros(layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A mask for every layer that was pruned, true where the weight is not zero.

    Args:
        layers: Weights by layer, floats.

    Returns:
        Only layers with more than one zero in a hundred weights, and more than 16.

    Example:
        >>> import torch
        >>> masks_of_zeros({"a": torch.tensor([[0.0, 1.0]]).repeat(10, 2), "b": torch.ones(10, 4)})["a"][0]
        tensor([False,  True, False,  True])
    """
    masks = {name: weight.detach() != 0 for name, weight in layers.items()}
    return {
        name: mask
        for name, mask in masks.items()
        if int((~mask).sum()) > max(_LEAST_COUNT, _LEAST_SHARE * mask.numel())
    }


def describe_zeros(masks: Mapping[str, Tensor]) -> str:
    """What is kept, in a line."""
    zeros = sum(int((~mask).sum()) for mask in masks.values())
    total = sum(mask.numel() for mask in masks.values())
    return (
        f"{zeros:,} of {total:,} weights in {len(masks)} layers are exactly zero and stay so; "
        "model.keep_zeros=false treats them like others"
    )
