"""Learned step size: scale and offset of a grid as parameters, moved by the gradient of the loss.

A grid is kept as its scale and its centre (the value in the middle of an asymmetric grid): moving the one leaves the
other's effect alone, which plain offsets do not.

Source: Esser et al. 2020, "Learned Step Size Quantization", arXiv:1902.08153, eqs. (1)-(5); offset: Bhalgat et al.
2020, "LSQ+", arXiv:2004.09576, section 3.1.
"""

from typing import Any

import torch
from torch import Tensor, nn

from modelpress.export.grids import GridSpec
from modelpress.toolkit.compression.quantization.quantizers import (
    Grid,
    QuantizerSpec,
    in_steps,
    rows_of,
    values_of,
)


class GridParameters(nn.Module):
    """Scale and centre of one layer's grid; parameters if the spec says learned, constants otherwise.

    Args:
        grid: The grid to start from.
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.spec = grid.spec
        learned = isinstance(grid.spec, QuantizerSpec) and grid.spec.learned
        self.scale = nn.Parameter(torch.empty_like(grid.scale), requires_grad=learned)
        movable = learned and grid.spec.zero_point == "float"
        self.centre = (
            None
            if grid.offset is None
            else nn.Parameter(torch.empty_like(grid.offset), requires_grad=movable)
        )
        self.take(grid)

    @torch.no_grad()
    def take(self, grid: Grid) -> None:
        """Continue from this grid. With an integer zero point the centre is that number, in steps."""
        self.scale.copy_(grid.scale)
        if self.centre is None or grid.offset is None:
            return

        integer = self.spec.zero_point == "integer"
        self.centre.copy_(
            torch.round(-grid.offset / grid.scale) if integer else grid.offset + self._half() * grid.scale
        )

    def grid(self) -> Grid:
        """The grid itself: scales positive, and offsets rounded to float32 as the file stores them."""
        scale = self.scale.abs()
        if self.centre is None:
            return Grid(self.spec, scale, None)
        if self.spec.zero_point == "integer":
            return Grid(self.spec, scale, -self.centre * scale)
        return Grid(self.spec, scale, self.centre - self._half() * scale)

    def _half(self) -> float:
        return self.spec.codes[1] / 2

    def forward(self, weight: Tensor, kept: Tensor | None) -> Tensor:
        """Grid values, with gradients for the weights, the scale and the centre.

        Args:
            weight: Removed weights are 0.
            kept: True where a weight is not removed; the gradient scale counts only those. None: all.
        """
        grid = self.grid()

        with torch.no_grad():  # gradient scale: one over the root of weights times positive codes
            counts = torch.full_like(weight, True) if kept is None else kept.float()
            n = rows_of(counts, self.spec).sum(dim=1).reshape(grid.scale.shape)
            steps = torch.clamp(n * max(self._positive_codes(), 1.0), min=1.0)

        return _LearnedStep.apply(weight, self.scale, self.centre, grid, torch.rsqrt(steps))

    def _positive_codes(self) -> float:
        return self.spec.codes[1] if self.spec.symmetric else self._half()


class _LearnedStep(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes them by position
        ctx: Any, weight: Tensor, scale: Tensor, centre: Tensor | None, grid: Grid, factor: Tensor
    ) -> Tensor:
        steps = in_steps(weight, grid)
        codes = torch.round(steps).clamp(*grid.spec.codes)

        zero = _zero(grid, centre)
        ctx.save_for_backward(steps, codes, factor, scale, zero)
        ctx.spec, ctx.has_centre = grid.spec, centre is not None
        return values_of(codes, grid)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        steps, codes, factor, scale, zero = ctx.saved_tensors
        spec: GridSpec = ctx.spec
        low, high = spec.codes
        inside = (steps >= low) & (steps <= high)

        # of the scale: the rounding error where the grid reaches, the code itself beyond its ends
        level = codes - zero.reshape(-1, *[1] * (codes.ndim - 1)) if zero.ndim else codes - zero
        per_scale = torch.where(inside, codes - steps, level)
        of_scale = _summed(gradient * per_scale, spec).reshape(scale.shape) * factor * torch.sign(scale)

        # of the centre: only what lies beyond the ends moves with it
        of_centre = None
        if ctx.has_centre and spec.zero_point == "float":
            of_centre = _summed(gradient * ~inside, spec).reshape(scale.shape) * factor
        return gradient * inside, of_scale, of_centre, None, None


def _zero(grid: Grid, centre: Tensor | None) -> Tensor:
    """The code that does not move with the scale."""
    if centre is None:
        return torch.zeros_like(grid.scale)
    if grid.spec.zero_point == "integer":
        return centre.detach()
    return torch.full_like(grid.scale, grid.spec.codes[1] / 2)


def _summed(values: Tensor, spec: GridSpec) -> Tensor:
    return rows_of(values, spec).sum(dim=1)
