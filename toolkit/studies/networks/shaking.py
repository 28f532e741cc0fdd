"""Untrained networks that behave like trained ones: their outputs depend on what they are given.

A network as PyTorch makes it hardly looks at its input once batch norm has nothing but zeros and ones to work with.
That what is made of such a network computes the same would prove nothing.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def shaken(network: nn.Module, *, seed: int = 0) -> nn.Module:
    """Give layers and batch norms, in place, weights and statistics that let signals through."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=generator)  # the default fades with depth
        if isinstance(module, _BatchNorm):
            _shake(module, generator)
    return network


def _shake(norm: _BatchNorm, generator: torch.Generator) -> None:
    for tensor, least in ((norm.running_var, 0.5), (norm.weight.data, 0.5), (norm.running_mean, 0.0)):
        if tensor is not None:
            tensor.copy_(least + torch.rand(tensor.shape, generator=generator))
    norm.bias.data.copy_(0.2 * torch.randn(norm.bias.shape, generator=generator))


@torch.no_grad()
def settled(network: nn.Module, inputs: Iterable[Tensor]) -> nn.Module:
    """Give batch norms, in place, the statistics of these inputs, as a training leaves them behind.

    Args:
        network: All but its statistics is left as it is.
        inputs: Calls, each of several examples; their statistics are averaged.
    """
    modes = {module: module.training for module in network.modules()}
    norms = [module for module in modes if isinstance(module, _BatchNorm)]
    usual = [norm.momentum for norm in norms]
    network.eval()  # nothing is dropped
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None  # these inputs count, and nothing before them

    for part in inputs:
        network(part)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    for module, mode in modes.items():
        module.training = mode
    return network


def pictures(n: int, channels: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Images that differ from each other as photographs do, in large areas and in detail; ``(n, C, H, W)``."""
    coarse = torch.randn(n, channels, 4, 4, generator=generator)
    areas = nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return areas + 0.5 * torch.randn(n, channels, height, width, generator=generator)


def spread(outputs: npt.NDArray[np.float32]) -> float:
    """How far an output moves from input to input, on average, over the range of all outputs.

    Args:
        outputs: Shape ``(n, ...)``, one entry an input.

    Example:
        >>> spread(np.array([[0.0, 4.0], [1.0, 4.0]], np.float32))
        0.125
    """
    whole = float(np.ptp(outputs))
    return float(np.ptp(outputs, axis=0).mean()) / whole if whole else 0.0
