"""Augmentation of training batches: tensor code on a whole batch, drawn on the CPU so that every device does the same.

A new kind is a function and a line in the table. Strengths are those that the field uses; examples are inputs as the
network takes them, so that zero is the mean where they are normalised.

Source: crops, flips and cutout: DeVries and Taylor 2017, arXiv:1708.04552; colour at random strengths: Cubuk et al.
2019, arXiv:1909.13719; shifts in time: Park et al. 2019, arXiv:1904.08779, section 2, without its warp.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from modelpress.export.errors import InputError
from modelpress.toolkit.data.names import AugmentationName

_CUTOUT = 0.5  # of each side, at most
_COLOUR = 0.4  # gain and offset, in standard deviations of the image, at most
_SHIFT = 0.1  # of the last axis, at most
_NOISE = 0.1  # standard deviation

Augment = Callable[
    [Tensor, torch.Generator, int], Tensor
]  # of inputs (n, ...), a generator, pixels of padding


def augmented(
    inputs: Tensor, names: Sequence[AugmentationName], *, seed: Sequence[int], padding: int
) -> Tensor:
    """Inputs changed at random, each example on its own.

    Args:
        inputs: Shape ``(n, channels, ...)``, float.
        names: What to do, in this order.
        seed: Numbers that fix the draw, such as those of run, epoch and step.
        padding: Of crops, in pixels.

    Raises:
        InputError: One does not suit inputs of this shape.

    Example:
        >>> augmented(torch.arange(8.0).view(1, 2, 4), ["time-shift"], seed=[0], padding=0).shape
        torch.Size([1, 2, 4])
    """
    state = 0
    for number in seed:
        state = (state * 1_000_003 + number) % 2**63
    generator = torch.Generator().manual_seed(state)
    for name in names:
        inputs = AUGMENTATIONS[name](inputs, generator, padding)
    return inputs


def _images(inputs: Tensor, name: str) -> tuple[int, int, int]:
    if inputs.ndim != 4:
        raise InputError(
            f"data.augment {name} is for images (n, channels, height, width); inputs have shape {tuple(inputs.shape)}"
        )
    return len(inputs), inputs.shape[2], inputs.shape[3]


def _drawn(shape: Sequence[int], generator: torch.Generator, like: Tensor) -> Tensor:
    """Uniform in 0 to 1."""
    return torch.rand(*shape, generator=generator).to(like.device)


def _crop(inputs: Tensor, generator: torch.Generator, padding: int) -> Tensor:
    """Moved by up to `padding` pixels in each direction; what comes in is the edge's."""
    n, height, width = _images(inputs, "crop")
    if not padding:
        return inputs
    offsets = torch.randint(-padding, padding + 1, (2, n), generator=generator).to(inputs.device)
    rows = (torch.arange(height, device=inputs.device) + offsets[0, :, None]).clamp(0, height - 1)
    columns = (torch.arange(width, device=inputs.device) + offsets[1, :, None]).clamp(0, width - 1)
    index = torch.arange(n, device=inputs.device)[:, None, None, None]
    channels = torch.arange(inputs.shape[1], device=inputs.device)[:, None, None]
    return inputs[index, channels, rows[:, None, :, None], columns[:, None, None, :]]


def _flip(inputs: Tensor, generator: torch.Generator, padding: int) -> Tensor:
    """Every second one mirrored."""
    n, _, _ = _images(inputs, "flip")
    coin = _drawn((n, 1, 1, 1), generator, inputs) < 0.5
    return torch.where(coin, inputs.flip(-1), inputs)


def _cutout(inputs: Tensor, generator: torch.Generator, padding: int) -> Tensor:
    """A rectangle at the mean, of up to half of each side."""
    n, height, width = _images(inputs, "cutout")
    size = _drawn((2, n, 1), generator, inputs) * _CUTOUT
    centre = _drawn((2, n, 1), generator, inputs)
    rows = (torch.arange(height, device=inputs.device) / height - centre[0]).abs() < size[0] / 2
    columns = (torch.arange(width, device=inputs.device) / width - centre[1]).abs() < size[1] / 2
    return inputs.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


def _colour(inputs: Tensor, generator: torch.Generator, padding: int) -> Tensor:
    """Contrast and brightness of each channel, at random strengths."""
    n, _, _ = _images(inputs, "colour")
    strength = _drawn((n, 1, 1, 1), generator, inputs) * _COLOUR
    signs = 2 * _drawn((2, n, inputs.shape[1], 1, 1), generator, inputs) - 1
    mean = inputs.mean(dim=(2, 3), keepdim=True)
    return (inputs - mean) * (1 + strength * signs[0]) + mean + strength * signs[1]


def _time_shift(inputs: Tensor, generator: torch.Generator, padding: int) -> Tensor:
    """Along the last axis, by up to a tenth of it; what leaves on one side comes in on the other."""
    length = inputs.shape[-1]
    most = max(round(_SHIFT * length), 1)
    offsets = torch.randint(-most, most + 1, (len(inputs),), generator=generator).to(inputs.device)
    index = (torch.arange(length, device=inputs.device) - offsets[:, None]) % length  # (n, length)
    return inputs.gather(-1, index.view(len(inputs), *(1,) * (inputs.ndim - 2), length).expand_as(inputs))


def _noise(inputs: Tensor, generator: torch.Generator, padding: int) -> Tensor:
    """Gaussian, a tenth of a standard deviation."""
    return inputs + _NOISE * torch.randn(inputs.shape, generator=generator).to(inputs.device)


AUGMENTATIONS: Mapping[AugmentationName, Augment] = MappingProxyType(
    {
        "crop": _crop,
        "flip": _flip,
        "cutout": _cutout,
        "colour": _colour,
        "time-shift": _time_shift,
        "noise": _noise,
    }
)
