"""Batch-norm factors and biases in half precision, so that the artifact stores two bytes for each.

The network itself is changed, before anything is measured: what PyTorch computes afterwards is what the file
holds. Weights are not touched.
"""

import torch
from torch import Tensor, nn

from modelpress.export.graphs.batch_norm import folded


def round_parameters_to_half(network: nn.Module) -> bool:
    """Round what batch norms fold to, and biases of linear layers, to float16.

    A batch norm folds to ``factor = weight / sqrt(var + eps)`` and ``bias - factor * mean``; its weight and bias
    become those that fold to the nearest float16 of each.

    Args:
        network: Changed in place; only if everything fits.

    Returns:
        Whether float16 has room for all of them; if not, nothing is changed.

    Example:
        >>> linear = nn.Linear(1, 1)
        >>> _ = nn.init.constant_(linear.bias, 0.1)
        >>> round_parameters_to_half(linear), linear.bias.item()
        (True, 0.0999755859375)
    """
    rounded: list[tuple[nn.Parameter, Tensor]] = []
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            rounded += _rounded_norm(module)
        elif isinstance(module, nn.Linear) and module.bias is not None:
            rounded.append((module.bias, _half(module.bias.double())))

    if not all(torch.isfinite(value).all() for _, value in rounded):
        return False

    with torch.no_grad():
        for parameter, value in rounded:
            parameter.copy_(value)
    return True


def _rounded_norm(norm: nn.BatchNorm2d) -> list[tuple[nn.Parameter, Tensor]]:
    assert norm.running_mean is not None  # every BatchNorm2d of a trained network tracks them
    assert norm.running_var is not None
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    parts = folded(norm.weight.double(), norm.bias.double(), mean, variance, epsilon=norm.eps)

    factor, bias = map(_half, parts)
    deviation = torch.sqrt(variance + norm.eps)
    return [(norm.weight, factor * deviation), (norm.bias, bias + factor * mean)]


def _half(value: Tensor) -> Tensor:
    """The nearest float16, as float64; infinite where there is none."""
    return value.detach().half().double()
