"""Uniform grids: what the codes of a weight stand for, and which code is nearest.

A code ``c`` stands for ``c * scale`` (symmetric) or ``c * scale + offset`` (asymmetric), computed in float32 by one
multiplication and one addition. This is the only place of that arithmetic: the functions take NumPy arrays and torch
tensors alike, so that training, files and runtimes agree bit for bit.

Source: Jacob et al. 2018, arXiv:1712.05877.
"""

from dataclasses import dataclass
from typing import Any, Literal

from array_api_compat import array_namespace

from modelpress.export.errors import InputError, ModelError

Array = Any  # of NumPy or of torch; this module never imports torch
GridRange = Literal["min-max", "mse"]
ZeroPoint = Literal["float", "integer"]
MIN_BITS, MAX_BITS = 2, 8


@dataclass(frozen=True)
class GridSpec:
    """What kind of grid a weight is quantized on.

    Attributes:
        bits: Code width, 2 to 8.
        symmetric: Grid ``-q..q`` around zero with ``q = 2**(bits-1) - 1``; else ``0..2**bits - 1`` from an offset.
        per_channel: One scale per output channel (first axis) instead of one per tensor.
        zero_point: Of asymmetric grids: any ``float`` offset, or an ``integer`` number of steps, so that zero is a
            grid value.

    Raises:
        ModelError: The width is outside 2 to 8.
        InputError: A symmetric grid is to have a zero point.
    """

    bits: int
    symmetric: bool = False
    per_channel: bool = False
    zero_point: ZeroPoint = "float"

    def __post_init__(self) -> None:
        code_range(bits=self.bits, signed=self.symmetric)  # refuses widths outside 2..8
        if self.symmetric and self.zero_point == "integer":
            raise InputError("a symmetric grid has no zero point; choose an asymmetric one")

    @property
    def codes(self) -> tuple[int, int]:
        """Smallest and largest code."""
        return code_range(bits=self.bits, signed=self.symmetric)


@dataclass(frozen=True, eq=False)
class Grid:
    """A concrete grid.

    Attributes:
        spec: Its kind.
        scale: Shape ``()`` or ``(out,)``, positive.
        offset: Shape of `scale`, or None for symmetric grids.
    """

    spec: GridSpec
    scale: Array
    offset: Array | None


def code_range(*, bits: int, signed: bool) -> tuple[int, int]:
    """Smallest and largest code of a width.

    Example:
        >>> code_range(bits=4, signed=True), code_range(bits=4, signed=False)
        ((-7, 7), (0, 15))
    """
    if not MIN_BITS <= bits <= MAX_BITS:
        raise ModelError(f"code width is {bits} bits; expected {MIN_BITS} to {MAX_BITS}")

    q_max = (1 << (bits - 1)) - 1
    return (-q_max, q_max) if signed else (0, (1 << bits) - 1)


def min_max_grid(weight: Array, spec: GridSpec, *, kept: Array | None = None) -> Grid:
    """The grid that just covers all weights.

    Asymmetric: ``offset = min(w)``, ``scale = (max(w) - min(w)) / (2**bits - 1)``.
    Symmetric: ``scale = max|w| / (2**(bits-1) - 1)``. A constant range gets scale 1. With an integer zero point the
    range is widened to contain zero, and the offset is ``-round(-min / scale) * scale``.

    Args:
        weight: Any shape, float32; the first axis are the output channels.
        spec: Width, symmetry and granularity.
        kept: True where a weight is not removed; only those count. None: all.

    Example:
        >>> import numpy as np
        >>> grid = min_max_grid(np.array([[-1.0, 0.0, 2.0]], np.float32), GridSpec(bits=2))
        >>> grid.scale, grid.offset
        (np.float32(1.0), np.float32(-1.0))
    """
    used = None if kept is None else rows_of(kept, spec)
    low, high = limits(*extremes(rows_of(weight, spec), used, axis=1))
    if spec.zero_point == "integer":
        low, high = low.clip(max=0.0), high.clip(min=0.0)

    scale = step_of(span_between(low, high, spec), spec)
    scale = array_namespace(scale).where(scale > 0, scale, 1.0)
    offset = None if spec.symmetric else low
    if spec.zero_point == "integer":
        zero = (-low / scale).round().clip(max=spec.codes[1])  # the smallest float32 scales are coarse
        offset = -zero * scale

    return shaped(spec, scale, offset)


def shaped(spec: GridSpec, scale: Array, offset: Array | None) -> Grid:
    """A grid from parameters of shape ``(out,)``, or ``(1,)`` with one scale per tensor."""
    if not spec.per_channel:
        scale, offset = scale[0], None if offset is None else offset[0]
    return Grid(spec, scale, None if spec.symmetric else offset)


def rows_of(weight: Array, spec: GridSpec) -> Array:
    """One row per scale: shape ``(out, n / out)``, or ``(1, n)`` with one scale per tensor."""
    return weight.reshape(weight.shape[0] if spec.per_channel else 1, -1)


def extremes(values: Array, kept: Array | None, *, axis: int | tuple[int, ...]) -> tuple[Array, Array]:
    """Least and greatest kept value along axes; infinity and its negative where nothing is kept."""
    xp = array_namespace(values)
    least = values if kept is None else xp.where(kept, values, xp.inf)
    most = values if kept is None else xp.where(kept, values, -xp.inf)
    return xp.min(least, axis=axis), xp.max(most, axis=axis)


def limits(low: Array, high: Array) -> tuple[Array, Array]:
    """Extremes as the ends of a range; both are 0 where nothing was kept."""
    xp = array_namespace(low)
    nothing = low > high
    return xp.where(nothing, 0.0, low), xp.where(nothing, 0.0, high)


def span_between(low: Array, high: Array, spec: GridSpec) -> Array:
    """What the largest code less the smallest, or less code 0 of symmetric grids, stands for."""
    return array_namespace(low).maximum(high, -low) if spec.symmetric else high - low


def step_of(span: Array, spec: GridSpec) -> Array:
    """Distance of the values of a grid of this span.

    It is a true division: by a plain number, GPUs multiply with its reciprocal, which may differ in the last bit.
    """
    return span / array_namespace(span).full_like(span, spec.codes[1])


def codes_of(weight: Array, grid: Grid, *, axis: int = 0) -> Array:
    """Nearest code of every weight, as float32; ties round to even.

    Args:
        weight: Float32.
        grid: Its parameters run along `axis`.
        axis: Which axis of the weight counts the channels of the grid.

    Example:
        >>> import numpy as np
        >>> w = np.array([[-1.0, 0.4, 2.0]], np.float32)
        >>> codes_of(w, min_max_grid(w, GridSpec(bits=2)))
        array([[0., 1., 3.]], dtype=float32)
    """
    return in_steps(weight, grid, axis=axis).round().clip(*grid.spec.codes)


def in_steps(weight: Array, grid: Grid, *, axis: int = 0) -> Array:
    """Weights in units of the scale, from the offset on: codes before they are rounded and clamped."""
    if grid.offset is not None:
        weight = weight - along_axis(grid.offset, axis, weight.ndim)
    return weight / along_axis(grid.scale, axis, weight.ndim)


def values_of(codes: Array, grid: Grid) -> Array:
    """Undo `codes_of` up to rounding."""
    return decoded(codes, grid.scale, grid.offset, axis=0)


def decoded(codes: Array, scale: Array, offset: Array | None, *, axis: int) -> Array:
    """What codes stand for: a new array, float32.

    Args:
        codes: Integers, or float32 of integer value.
        scale: Float32, shape ``()`` or ``(out,)``.
        offset: Shape of `scale`, or None for symmetric codes.
        axis: Which axis of the codes counts the ``out`` channels.
    """
    values = codes * along_axis(scale, axis, codes.ndim)
    if offset is not None:
        values += along_axis(offset, axis, codes.ndim)  # in place: weights can be large
    return values


def along_axis(parameter: Array, axis: int, n_axes: int) -> Array:
    """A parameter of shape ``()`` or ``(out,)``, reshaped to broadcast along an axis of an array of `n_axes` axes.

    Example:
        >>> import numpy as np
        >>> along_axis(np.ones(3), 1, 4).shape, along_axis(np.float32(1), 0, 2).shape
        ((1, 3, 1, 1), (1, 1))
    """
    shape = [1] * n_axes
    shape[axis] = -1
    return parameter.reshape(shape)
