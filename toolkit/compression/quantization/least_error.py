"""The uniform grid of least squared error for given weights.

Given the codes, the best scale and offset are a linear regression of the weights on them; given those, the best
codes are the nearest. Both steps lower the squared error, so alternating them converges; several starts, the grid of
minimum and maximum among them, guard against bad ends.

Source: Lloyd 1982, "Least squares quantization in PCM", restricted to uniform grids; for the pruned case only
the surviving weights count.
"""

import torch
from torch import Tensor

from modelpress.toolkit.compression.quantization.quantizers import Grid, QuantizerSpec, min_max_grid, rows_of

_SHRINKAGE = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)  # of the range of minimum and maximum
_ROUNDS = 24


@torch.no_grad()
def least_error_grid(weight: Tensor, spec: QuantizerSpec, *, kept: Tensor | None = None) -> Grid:
    """The grid with the smallest ``sum((w - quantized(w))**2)`` that the search finds.

    Args:
        weight: Any shape; the first axis are the output channels.
        spec: Width, symmetry and granularity.
        kept: True where a weight is not removed; only those count. None: all.

    Returns:
        A grid whose error is never above that of `min_max_grid`.

    Example:
        >>> w = torch.tensor([[-1.0, -1.1, 0.9, 1.0, 9.0]])
        >>> grid = least_error_grid(w, QuantizerSpec(bits=2), kept=w < 2)
        >>> round(grid.scale.item(), 3)  # the outlier is not there
        0.667
    """
    rows = rows_of(weight.detach().double(), spec)
    used = torch.ones_like(rows) if kept is None else rows_of(kept, spec).double()

    widest = min_max_grid(weight, spec, kept=kept)
    scale = widest.scale.double().reshape(-1)
    offset = torch.zeros_like(scale) if widest.offset is None else widest.offset.double().reshape(-1)
    middle = offset + scale * sum(spec.codes) / 2

    # narrower grids around the same middle as starts: the best one often leaves outliers outside
    best = _Best(rows, used, spec, scale, offset)
    for factor in _SHRINKAGE:
        best.descend(scale * factor, middle - scale * factor * sum(spec.codes) / 2)
    return best.grid()


class _Best:
    """The best grid so far, per row."""

    def __init__(
        self, rows: Tensor, used: Tensor, spec: QuantizerSpec, scale: Tensor, offset: Tensor
    ) -> None:
        self.rows, self.used, self.spec = rows, used, spec
        self.scale, self.offset = scale, offset
        self.error = self._error(scale, offset, self._codes(scale, offset))

    def descend(self, scale: Tensor, offset: Tensor) -> None:
        """Alternate nearest codes and regression from this start; keep whatever is better."""
        for _ in range(_ROUNDS):
            scale, offset = self._on_grid(scale, offset)
            codes = self._codes(scale, offset)
            error = self._error(scale, offset, codes)

            better = error < self.error
            self.error = torch.where(better, error, self.error)
            self.scale = torch.where(better, scale, self.scale)
            self.offset = torch.where(better, offset, self.offset)

            scale, offset = self._regression(codes, scale, offset)

    def grid(self) -> Grid:
        """In float32, shaped as the spec says."""
        scale, offset = self.scale.float(), self.offset.float()
        if not self.spec.per_channel:
            scale, offset = scale[0], offset[0]
        return Grid(self.spec, scale, None if self.spec.symmetric else offset)

    def _codes(self, scale: Tensor, offset: Tensor) -> Tensor:
        return torch.round((self.rows - offset[:, None]) / scale[:, None]).clamp(*self.spec.codes)

    def _error(self, scale: Tensor, offset: Tensor, codes: Tensor) -> Tensor:
        return (self.used * (self.rows - codes * scale[:, None] - offset[:, None]).square()).sum(dim=1)

    def _on_grid(self, scale: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """An integer zero point where the spec asks for one; scales that float32 can hold in any case."""
        scale = scale.float().double()
        if self.spec.zero_point == "integer":
            return scale, torch.round(offset / scale).clamp(-self.spec.codes[1], 0) * scale
        return scale, offset.float().double()

    def _regression(self, codes: Tensor, scale: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Least squares of the weights on the codes; the old values where the codes determine none."""
        if self.spec.symmetric or self.spec.zero_point == "integer":
            steps = codes if self.spec.symmetric else codes + torch.round(offset / scale)[:, None]
            new = (self.used * steps * self.rows).sum(dim=1) / (self.used * steps.square()).sum(dim=1)
            good = torch.isfinite(new) & (new > 0)
            new = torch.where(good, new, scale)
            return new, torch.round(offset / scale) * new

        n = self.used.sum(dim=1)
        mean_code = (self.used * codes).sum(dim=1) / n
        mean_weight = (self.used * self.rows).sum(dim=1) / n

        centred = codes - mean_code[:, None]
        new = (self.used * centred * self.rows).sum(dim=1) / (self.used * centred.square()).sum(dim=1)
        good = torch.isfinite(new) & (new > 0)
        return torch.where(good, new, scale), torch.where(good, mean_weight - new * mean_code, offset)
