"""Uniform quantization grids and the straight-through estimator.

A code ``c`` stands for ``c * scale`` (symmetric) or ``c * scale + offset`` (asymmetric), computed in float32
by one multiplication and one addition: the very arithmetic of `export.quantized`, so that training, file
and runtime agree bit for bit.

Source: Jacob et al. 2018, arXiv:1712.05877; straight-through estimator: Bengio et al. 2013, arXiv:1308.3432.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from export.quantized import code_range


@dataclass(frozen=True)
class QuantizerSpec:
    """How a weight is quantized.

    Attributes:
        bits: Code width, 2 to 8.
        symmetric: Grid ``-q..q`` around zero with ``q = 2**(bits-1) - 1``; else from minimum to maximum.
        per_channel: One scale per output channel (first axis) instead of one per tensor.
    """

    bits: int
    symmetric: bool = False
    per_channel: bool = False

    def __post_init__(self) -> None:
        code_range(bits=self.bits, signed=self.symmetric)  # refuses widths outside 2..8


@dataclass(frozen=True)
class Grid:
    """A concrete grid.

    Attributes:
        scale: Shape ``()`` or ``(out,)``, positive.
        offset: Shape of `scale`, or None for symmetric grids.
    """

    spec: QuantizerSpec
    scale: Tensor
    offset: Tensor | None


def min_max_grid(weight: Tensor, spec: QuantizerSpec) -> Grid:
    """The grid that just covers all weights.

    Asymmetric: ``offset = min(w)``, ``scale = (max(w) - min(w)) / (2**bits - 1)``.
    Symmetric: ``scale = max|w| / (2**(bits-1) - 1)``. A constant range gets scale 1.

    Example:
        >>> grid = min_max_grid(torch.tensor([[-1.0, 0.0, 2.0]]), QuantizerSpec(bits=2))
        >>> grid.scale, grid.offset
        (tensor(1.), tensor(-1.))
    """
    flat = (
        weight.detach().float().reshape(weight.shape[0], -1)
        if spec.per_channel
        else weight.detach().float().reshape(1, -1)
    )
    if spec.symmetric:
        _, q_max = code_range(bits=spec.bits, signed=True)
        span, offset = _divided(flat.abs().amax(dim=1), q_max), None
    else:
        _, q_max = code_range(bits=spec.bits, signed=False)
        offset = flat.amin(dim=1)
        span = _divided(flat.amax(dim=1) - offset, q_max)
    scale = torch.where(span > 0, span, torch.ones_like(span))
    if not spec.per_channel:
        scale, offset = scale[0], None if offset is None else offset[0]
    return Grid(spec, scale, offset)


def codes_of(weight: Tensor, grid: Grid) -> Tensor:
    """Nearest code of every weight, as float32; ties round to even.

    Example:
        >>> w = torch.tensor([[-1.0, 0.4, 2.0]])
        >>> codes_of(w, min_max_grid(w, QuantizerSpec(bits=2)))
        tensor([[0., 1., 3.]])
    """
    low, high = code_range(bits=grid.spec.bits, signed=grid.offset is None)
    shifted = weight if grid.offset is None else weight - _along_channels(grid.offset, weight)
    return torch.round(shifted / _along_channels(grid.scale, weight)).clamp(low, high)


def values_of(codes: Tensor, grid: Grid) -> Tensor:
    """Undo `codes_of` up to rounding."""
    values = codes * _along_channels(grid.scale, codes)
    return values if grid.offset is None else values + _along_channels(grid.offset, codes)


def fake_quantize(weight: Tensor, grid: Grid) -> Tensor:
    """Grid values in the forward pass, the identity in the backward pass."""
    with torch.no_grad():
        values = values_of(codes_of(weight, grid), grid)
    return _StraightThrough.apply(weight, values)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, weight: Tensor, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _divided(span: Tensor, steps: int) -> Tensor:
    """A true division: by a plain number, GPUs multiply with its reciprocal, which may differ in the last bit."""
    return span / torch.full_like(span, steps)


def _along_channels(parameter: Tensor, like: Tensor) -> Tensor:
    return parameter.reshape(-1, *[1] * (like.ndim - 1)) if parameter.ndim else parameter
