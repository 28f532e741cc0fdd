"""Batches straight from device memory: one gather crops, mirrors and collects a whole batch."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from modelpress.export.post_training.pixels import normalisation_factors
from modelpress.toolkit.data.data_set import DataSet, Split


@dataclass(frozen=True)
class DeviceSplit:
    """Images and labels on the device.

    Attributes:
        images: uint8, shape ``(n, 3, H + 2 * padding, W + 2 * padding)``; the border is black.
        padding: Pixels added on every side.
        scale: Shape ``(3, 1, 1)``; see `normalisation_factors`.
        shift: Shape ``(3, 1, 1)``.
    """

    images: Tensor
    labels: Tensor
    padding: int
    scale: Tensor
    shift: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def in_order(self, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images once, unchanged, float32."""
        size = self.images.shape[-1] - 2 * self.padding
        inner = slice(self.padding, self.padding + size)
        for start in range(0, len(self), batch):
            pixels = self.images[start : start + batch, :, inner, inner]
            yield pixels.float() * self.scale + self.shift, self.labels[start : start + batch]


@dataclass(frozen=True)
class EpochPlan:
    """Order, crop and mirror of every image of one epoch, fixed by seed and epoch number alone.

    The plan is drawn on the CPU, so that it is the same on every device and after every resume.
    """

    order: Tensor  # (n,)
    top: Tensor  # (n,)
    left: Tensor  # (n,)
    mirror: Tensor  # (n,), bool

    @classmethod
    def draw(cls, split: DeviceSplit, *, seed: int, epoch: int, mirror: bool) -> "EpochPlan":
        """Random order; crop corners uniform over the padding; every second image mirrored if allowed."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        n, device = len(split), split.images.device
        order = torch.randperm(n, generator=generator)
        corners = torch.randint(0, 2 * split.padding + 1, (2, n), generator=generator)
        coin = torch.randint(0, 2, (n,), generator=generator).bool() & mirror
        return cls(order.to(device), corners[0].to(device), corners[1].to(device), coin.to(device))

    def batch(
        self, split: DeviceSplit, step: int, *, size: int, part: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """Augmented batch number `step`, or a part of it: images ``(size, 3, H, W)`` float32 and labels."""
        first, last, _ = part.indices(min(size, len(split)))
        chosen = slice(step * size + first, step * size + last)
        index = self.order[chosen]

        # coordinates of every pixel of every image, so that one gather does all
        side = split.images.shape[-1] - 2 * split.padding
        ramp = torch.arange(side, device=index.device)
        rows = self.top[chosen, None] + ramp  # (size, H)
        columns = torch.where(self.mirror[chosen, None], side - 1 - ramp, ramp) + self.left[chosen, None]
        channels = torch.arange(3, device=index.device)[:, None, None]

        pixels = split.images[
            index[:, None, None, None], channels, rows[:, None, :, None], columns[:, None, None, :]
        ]

        return pixels.float() * split.scale + split.shift, split.labels[index]


def n_batches(split: DeviceSplit, size: int) -> int:
    """Whole batches in an epoch (at least one); the remainder takes part in other epochs' orders."""
    return max(1, len(split) // size)


def to_device(split: Split, data: DataSet, device: torch.device, *, padding: int = 0) -> DeviceSplit:
    """Put a split into device memory once, with a black border for cropping."""
    images = torch.from_numpy(split.images.copy()).to(device)
    scale, shift = normalisation_factors(data.mean, data.std)

    return DeviceSplit(
        F.pad(images, (padding,) * 4),
        torch.from_numpy(split.labels.copy()).to(device),
        padding,
        torch.from_numpy(scale)[:, None, None].to(device),
        torch.from_numpy(shift)[:, None, None].to(device),
    )
