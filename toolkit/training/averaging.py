"""Exponential moving average of a network's weights and statistics.

Source: Polyak and Juditsky 1992; in the form of Tarvainen and Valpola 2017, arXiv:1703.01780, section 2, whose
decay grows to its final value during the first steps.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average beside a network in training.

    Args:
        network: Its floating-point parameters and buffers are averaged; the rest is its own at any time.
        decay: Share of the old average kept in every step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self._own = _floating(network)
        self.values = {name: value.clone() for name, value in self._own.items()}

    @torch.no_grad()
    def update(self, n_steps: int) -> None:
        """A step is done, the `n_steps`-th of the training."""
        decay = min(self._decay, (1 + n_steps) / (10 + n_steps))
        torch._foreach_lerp_(list(self.values.values()), list(self._own.values()), 1 - decay)

    @torch.no_grad()
    def restart(self) -> None:
        """Forget the past: the average is the network as it is now."""
        for name, value in self._own.items():
            self.values[name].copy_(value)

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Continue from these values."""
        for name, value in values.items():
            self.values[name].copy_(value)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the network's values and the average."""
        for name, value in self._own.items():
            kept = value.clone()
            value.copy_(self.values[name])
            self.values[name].copy_(kept)


def _floating(network: nn.Module) -> dict[str, Tensor]:
    """Views of its floating-point values; training changes them in place."""
    return {
        name: value.detach()
        for name, value in (*network.named_parameters(), *network.named_buffers())
        if value.is_floating_point()
    }
