"""Quantized weights in training: the straight-through estimator on the grids of `modelpress.export.grids`.

Source: Bengio et al. 2013, arXiv:1308.3432.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from modelpress.export.grids import (
    Grid,
    GridRange,
    GridSpec,
    codes_of,
    in_steps,
    min_max_grid,
    rows_of,
    values_of,
)

__all__ = [
    "Grid",
    "QuantizerSpec",
    "codes_of",
    "fake_quantize",
    "in_steps",
    "min_max_grid",
    "rows_of",
    "values_of",
]


@dataclass(frozen=True)
class QuantizerSpec(GridSpec):
    """How a weight is quantized in training.

    Attributes:
        range: The grid covers all weights (``min-max``), or is the one of least squared error (``mse``).
        learned: Scale and offset are parameters that training moves (learned step size).
    """

    range: GridRange = "min-max"
    learned: bool = False

    @property
    def follows_weights(self) -> bool:
        """Whether the grid is a function of the present weights, so that nothing about it is kept."""
        return self.range == "min-max" and not self.learned


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
