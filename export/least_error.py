"""The uniform grid of least squared error for given weights.

Given the codes, the best scale and offset are a linear regression of the weights on them; given those, the best
codes are the nearest. Both steps lower the squared error, so alternating them converges; several starts, the grid of
minimum and maximum among them, guard against bad ends.

Source: Lloyd 1982, "Least squares quantization in PCM", restricted to uniform grids; for the pruned case only
the surviving weights count.
"""

import numpy as np
from array_api_compat import array_namespace

from modelpress.export.grids import Array, Grid, GridSpec, min_max_grid, rows_of, shaped

_SHRINKAGE = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)  # of the range of minimum and maximum
_ROUNDS = 24


@np.errstate(all="ignore")  # codes that determine no grid are told by what is not finite
def least_error_grid(weight: Array, spec: GridSpec, *, kept: Array | None = None) -> Grid:
    """The grid with the smallest ``sum((w - quantized(w))**2)`` that the search finds.

    Args:
        weight: Any shape, float32, of NumPy or torch; the first axis are the output channels.
        spec: Width, symmetry and granularity.
        kept: True where a weight is not removed; only those count. None: all.

    Returns:
        A grid whose error is never above that of `min_max_grid`.

    Example:
        >>> w = np.array([[-1.0, -1.1, 0.9, 1.0, 9.0]], np.float32)
        >>> grid = least_error_grid(w, GridSpec(bits=2), kept=w < 2)
        >>> round(grid.scale.item(), 3)  # the outlier is not there
        0.667
    """
    xp = array_namespace(weight)
    rows = xp.astype(rows_of(weight, spec), xp.float64)
    used = xp.ones_like(rows) if kept is None else xp.astype(rows_of(kept, spec), xp.float64)

    widest = min_max_grid(weight, spec, kept=kept)
    scale = xp.astype(widest.scale.reshape(-1), xp.float64)
    offset = (
        xp.zeros_like(scale) if widest.offset is None else xp.astype(widest.offset.reshape(-1), xp.float64)
    )

    middle = offset + scale * sum(spec.codes) / 2
    best = _Best(rows, used, spec, scale, offset)
    for factor in _SHRINKAGE:
        best.descend(scale * factor, middle - scale * factor * sum(spec.codes) / 2)

    return best.grid()


class _Best:
    """The best grid so far, per row."""

    def __init__(self, rows: Array, used: Array, spec: GridSpec, scale: Array, offset: Array) -> None:
        self.rows, self.used, self.spec = rows, used, spec
        self.xp = array_namespace(rows)
        self.scale, self.offset = scale, offset
        self.error = self._error(scale, offset, self._codes(scale, offset))

    def descend(self, scale: Array, offset: Array) -> None:
        """Alternate nearest codes and regression from this start; keep whatever is better."""
        for _ in range(_ROUNDS):
            scale, offset = self._on_grid(scale, offset)
            codes = self._codes(scale, offset)
            error = self._error(scale, offset, codes)

            better = error < self.error
            self.error = self.xp.where(better, error, self.error)
            self.scale = self.xp.where(better, scale, self.scale)
            self.offset = self.xp.where(better, offset, self.offset)

            scale, offset = self._regression(codes, scale, offset)

    def grid(self) -> Grid:
        """In float32, shaped as the spec says."""
        return shaped(self.spec, self._single(self.scale), self._single(self.offset))

    def _single(self, parameter: Array) -> Array:
        return self.xp.astype(parameter, self.xp.float32)

    def _codes(self, scale: Array, offset: Array) -> Array:
        return ((self.rows - offset[:, None]) / scale[:, None]).round().clip(*self.spec.codes)

    def _error(self, scale: Array, offset: Array, codes: Array) -> Array:
        rest = self.rows - codes * scale[:, None] - offset[:, None]
        return self._summed(rest * rest)

    def _summed(self, values: Array) -> Array:
        """Sums over the weights that count, one for each row."""
        return self.xp.sum(self.used * values, axis=1)

    def _on_grid(self, scale: Array, offset: Array) -> tuple[Array, Array]:
        """An integer zero point where the spec asks for one; scales that float32 can hold in any case."""
        scale = self._representable(scale)
        if self.spec.zero_point == "integer":
            return scale, (offset / scale).round().clip(-self.spec.codes[1], 0) * scale
        return scale, self._representable(offset)

    def _representable(self, parameter: Array) -> Array:
        """The nearest float32, as float64."""
        return self.xp.astype(self._single(parameter), self.xp.float64)

    def _regression(self, codes: Array, scale: Array, offset: Array) -> tuple[Array, Array]:
        """Least squares of the weights on the codes; the old values where the codes determine none."""
        if self.spec.symmetric or self.spec.zero_point == "integer":
            zero = (offset / scale).round()
            steps = codes if self.spec.symmetric else codes + zero[:, None]
            new = self._slope(steps, scale)[0]
            return new, zero * new

        n = self.xp.sum(self.used, axis=1)
        mean_code, mean_weight = self._summed(codes) / n, self._summed(self.rows) / n
        new, good = self._slope(codes - mean_code[:, None], scale)
        return new, self.xp.where(good, mean_weight - new * mean_code, offset)

    def _slope(self, steps: Array, scale: Array) -> tuple[Array, Array]:
        """The scale by which steps fit the weights best, and where there is one; the old scale elsewhere."""
        new = self.xp.sum(self.used * steps * self.rows, axis=1) / self._summed(steps * steps)
        good = self.xp.isfinite(new) & (new > 0)
        return self.xp.where(good, new, scale), good
