"""Uniform quantization grids and the straight-through estimator.

A code ``c`` stands for ``c * scale`` (symmetric) or ``c * scale + offset`` (asymmetric), computed in float32
by one multiplication and one addition: the very arithmetic of `modelpress.export.quantized`, so that training, file
and runtime agree bit for bit.

Source: Jacob et al. 2018, arXiv:1712.05877; straight-through estimator: Bengio et al. 2013, arXiv:1308.3432.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from modelpress.export.errors import InputError
from modelpress.export.quantized import code_range

Range = Literal["min-max", "mse"]
ZeroPoint = Literal["float", "integer"]


@dataclass(frozen=True)
class QuantizerSpec:
    """How a weight is quantized.

    Attributes:
        bits: Code width, 2 to 8.
        symmetric: Grid ``-q..q`` around zero with ``q = 2**(bits-1) - 1``; else ``0..2**bits - 1`` from an offset.
        per_channel: One scale per output channel (first axis) instead of one per tensor.
        zero_point: Of asymmetric grids: any ``float`` offset, or an ``integer`` number of steps, so that zero is a
            grid value.
        range: The grid covers all weights (``min-max``), or is the one of least squared error (``mse``).
        learned: Scale and offset are parameters that training moves (learned step size).
    """

    bits: int
    symmetric: bool = False
    per_channel: bool = False
    zero_point: ZeroPoint = "float"
    range: Range = "min-max"
    learned: bool = False

    def __post_init__(self) -> None:
        code_range(bits=self.bits, signed=self.symmetric)  # refuses widths outside 2..8
        if self.symmetric and self.zero_point == "integer":
            raise InputError("a symmetric grid has no zero point; choose an asymmetric one")

    @property
    def codes(self) -> tuple[int, int]:
        """Smallest and largest code."""
        return code_range(bits=self.bits, signed=self.symmetric)

    @property
    def follows_weights(self) -> bool:
        """Whether the grid is a function of the present weights, so that nothing about it is kept."""
        return self.range == "min-max" and not self.learned


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


def min_max_grid(weight: Tensor, spec: QuantizerSpec, *, kept: Tensor | None = None) -> Grid:
    """The grid that just covers all weights.

    Asymmetric: ``offset = min(w)``, ``scale = (max(w) - min(w)) / (2**bits - 1)``.
    Symmetric: ``scale = max|w| / (2**(bits-1) - 1)``. A constant range gets scale 1. With an integer zero point the
    range is widened to contain zero, and the offset is ``-round(-min / scale) * scale``.

    Args:
        weight: Any shape; the first axis are the output channels.
        spec: Width, symmetry and granularity.
        kept: True where a weight is not removed; only those count. None: all.

    Example:
        >>> grid = min_max_grid(torch.tensor([[-1.0, 0.0, 2.0]]), QuantizerSpec(bits=2))
        >>> grid.scale, grid.offset
        (tensor(1.), tensor(-1.))
    """
    flat = rows_of(weight.detach().float(), spec)
    used = None if kept is None else rows_of(kept, spec)
    _, q_max = spec.codes

    if spec.symmetric:
        size = flat.abs() if used is None else torch.where(used, flat.abs(), 0.0)
        span, offset = _divided(size.amax(dim=1), q_max), None
    else:
        low, high = _limits(flat, used)
        if spec.zero_point == "integer":
            low, high = low.clamp(max=0.0), high.clamp(min=0.0)
        span, offset = _divided(high - low, q_max), low

    scale = torch.where(span > 0, span, torch.ones_like(span))
    if spec.zero_point == "integer" and offset is not None:
        zero = torch.round(-offset / scale).clamp(max=q_max)  # the smallest float32 scales are coarse
        offset = -zero * scale

    if not spec.per_channel:
        scale, offset = scale[0], None if offset is None else offset[0]
    return Grid(spec, scale, offset)


def rows_of(weight: Tensor, spec: QuantizerSpec) -> Tensor:
    """One row per scale: shape ``(out, n / out)``, or ``(1, n)`` with one scale per tensor."""
    return weight.reshape(weight.shape[0] if spec.per_channel else 1, -1)


def _limits(rows: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """Smallest and largest kept value of every row; zeros where nothing is kept."""
    if kept is None:
        return rows.amin(dim=1), rows.amax(dim=1)

    low = torch.where(kept, rows, torch.inf).amin(dim=1)
    high = torch.where(kept, rows, -torch.inf).amax(dim=1)
    some = kept.any(dim=1)
    return torch.where(some, low, 0.0), torch.where(some, high, 0.0)


def codes_of(weight: Tensor, grid: Grid) -> Tensor:
    """Nearest code of every weight, as float32; ties round to even.

    Example:
        >>> w = torch.tensor([[-1.0, 0.4, 2.0]])
        >>> codes_of(w, min_max_grid(w, QuantizerSpec(bits=2)))
        tensor([[0., 1., 3.]])
    """
    return torch.round(in_steps(weight, grid)).clamp(*grid.spec.codes)


def in_steps(weight: Tensor, grid: Grid) -> Tensor:
    """Weights in units of the scale, from the offset on: codes before they are rounded and clamped."""
    shifted = weight if grid.offset is None else weight - _along_channels(grid.offset, weight)
    return shifted / _along_channels(grid.scale, weight)


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
