"""A network fed with batches that were normalised for another one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class RenormalisedTeacher(nn.Module):
    """Undoes one normalisation and applies another, per channel, before a network.

    A batch ``(pixel - mean) / std`` of the student becomes the teacher's. The map is not folded into the teacher's
    first convolution: that pads with zeros, which mean another pixel before the map than after it.

    Args:
        network: What is called with the result.
        batch: Mean and standard deviation that the batches come with, per channel, in units of pixel / 255.
        wanted: Those that the network was trained with.

    Example:
        >>> teacher = RenormalisedTeacher(nn.Identity(), batch=([0.5], [0.5]), wanted=([0.0], [1.0]))
        >>> teacher(torch.tensor([[[[-1.0, 1.0]]]]))
        tensor([[[[0., 1.]]]])
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        batch: tuple[Sequence[float], Sequence[float]],
        wanted: tuple[Sequence[float], Sequence[float]],
    ) -> None:
        super().__init__()
        self.network = network
        (mean, std), (own_mean, own_std) = (
            [torch.tensor(values, dtype=torch.float64)[:, None, None] for values in pair]
            for pair in (batch, wanted)
        )

        self.register_buffer("scale", (std / own_std).float())
        self.register_buffer("shift", ((mean - own_mean) / own_std).float())

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), normalised for the student, to what the network makes of it."""
        return self.network(x * self.scale + self.shift)
