"""Post-training quantization of one weight array: prune by magnitude, lay a grid, take the nearest codes.

The grid covers the weights that are not zero; zeros, pruned or not, stay exactly zero. All arithmetic is that of
training (`modelpress.export.grids`), in float32, so that equal weights get equal codes. Weights are visited in
blocks: beside input and result, only pruning needs memory of the array's size.

Source: Jacob et al. 2018, arXiv:1712.05877; pruning: Han et al. 2015, arXiv:1506.02626.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import ModelError
from modelpress.export.grids import (
    MAX_BITS,
    Grid,
    GridSpec,
    code_range,
    codes_of,
    extremes,
    limits,
    shaped,
    span_between,
    step_of,
)
from modelpress.export.quantized import QuantizedTensor, Tensor, largest_in

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Weights = npt.NDArray[np.floating]
BLOCK_ELEMENTS = 1 << 20
_LIMITS = np.finfo(np.float32)


@dataclass(frozen=True)
class PostTraining:
    """How weights are quantized after training.

    Attributes:
        bits: Code width, 2 to 8.
        symmetric: Grid ``-q..q`` around zero with ``q = 2**(bits-1) - 1``; False: from minimum to maximum; None: around
            zero in 8 bits, where integer arithmetic then takes the codes as they are. An int8 code less an offset
            leaves the 255 values around zero, so that other codes of 8 bits are rounded a second time; narrower ones
            less a whole offset fit.
        sparsity: Fraction of each tensor removed first, 0 to 1: the magnitudes closest to zero.

    Raises:
        ModelError: A value is out of range.
    """

    bits: int = 8
    symmetric: bool | None = None
    sparsity: float = 0.0

    def __post_init__(self) -> None:
        code_range(bits=self.bits, signed=self.around_zero)  # refuses widths outside 2..8
        if not 0 <= self.sparsity <= 1:
            raise ModelError(f"sparsity is {self.sparsity}; expected a fraction from 0 to 1")

    @property
    def around_zero(self) -> bool:
        """Whether the grid is symmetric, asked for or by default.

        Example:
            >>> PostTraining(bits=8).around_zero, PostTraining(bits=4).around_zero
            (True, False)
        """
        return self.bits == MAX_BITS if self.symmetric is None else self.symmetric


def quantize_weight(weight: Weights, options: PostTraining, *, channel_axis: int | None) -> Tensor:
    """Prune and quantize one array.

    Asymmetric: ``offset = min(w)``, ``scale = (max(w) - min(w)) / (2**bits - 1)``. Symmetric:
    ``scale = max|w| / (2**(bits-1) - 1)``. Both over the weights that are not zero after pruning; of a channel
    whose weights are all equal, or all zero, the scale is 1.

    Args:
        weight: At least 1-d; float32 or float16.
        options: Width, kind of grid, sparsity.
        channel_axis: One scale for each position along this axis; None: one for all.

    Returns:
        The codes; or `weight` itself, if no grid of normal float32 numbers covers it.

    Raises:
        ModelError: A weight is NaN or infinite.

    Example:
        >>> w = np.array([[-1.0, 0.4, 2.0, 0.1]], np.float32)
        >>> q = quantize_weight(w, PostTraining(bits=2, sparsity=0.25), channel_axis=None)
        >>> q.codes, q.dequantize()
        (array([[0, 1, 3, 0]], dtype=uint8), array([[-1.,  0.,  2.,  0.]], dtype=float32))
    """
    grouped = _by_channel(np.ascontiguousarray(weight), channel_axis)
    _check_finite(grouped)
    kept = _kept(grouped.reshape(-1), n_removed=round(options.sparsity * weight.size))
    low, high, kept = _ranges(grouped, None if kept is None else kept.reshape(grouped.shape))
    spec = GridSpec(options.bits, options.around_zero, per_channel=channel_axis is not None)
    grid = _grid(low, high, spec, dtype=weight.dtype)
    if grid is None:
        return weight

    codes = _codes(grouped, grid, kept)
    stored = shaped(spec, grid.scale, grid.offset)
    return QuantizedTensor(
        codes.reshape(weight.shape),
        bits=options.bits,
        scale=stored.scale,
        offset=stored.offset,
        support=None if kept is None or options.around_zero else kept.reshape(weight.shape),
        channel_axis=channel_axis or 0,
        dtype=weight.dtype.newbyteorder("="),
    )


def _by_channel(weight: Weights, axis: int | None) -> Weights:
    """A view of shape ``(outer, channels, inner)``."""
    if axis is None:
        return weight.reshape(1, 1, -1)
    shape = weight.shape
    return weight.reshape(prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :]))


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice, slice]]:
    """Cut an array of shape ``(outer, channels, inner)`` into boxes of few elements, in memory order."""
    outer, channels, inner = shape
    outer_step = max(BLOCK_ELEMENTS // max(channels * inner, 1), 1)
    channel_step = max(BLOCK_ELEMENTS // max(inner, 1), 1) if outer_step == 1 else channels

    for o in range(0, outer, outer_step):
        for c in range(0, channels, max(channel_step, 1)):
            for i in range(0, inner, BLOCK_ELEMENTS):
                yield (
                    slice(o, o + outer_step),
                    slice(c, c + channel_step),
                    slice(i, i + BLOCK_ELEMENTS),
                )


def _check_finite(grouped: Weights) -> None:
    """Refuse NaN and infinity.

    Raises:
        ModelError: As said.
    """
    for block in _blocks(grouped.shape):
        if not np.isfinite(grouped[block]).all():
            raise ModelError("weights hold NaN or infinity")


def _kept(flat: Weights, *, n_removed: int) -> BoolArray | None:
    """False at the weights of smallest magnitude, of equal ones the earlier; None if all stay."""
    if not n_removed:
        return None

    threshold, ties = _threshold(flat, n_removed)

    kept = np.empty(flat.shape, np.bool_)
    for start in range(0, flat.size, BLOCK_ELEMENTS):
        part = slice(start, start + BLOCK_ELEMENTS)
        magnitudes = np.abs(flat[part])
        kept[part] = magnitudes > threshold

        # of equal magnitudes the earlier ones go, as in training, until enough are gone
        equal = np.flatnonzero(magnitudes == threshold)
        kept[start + equal[ties:]] = True
        ties = max(ties - len(equal), 0)

    return kept


def _threshold(flat: Weights, n_removed: int) -> tuple[np.floating, int]:
    """The largest magnitude removed, and how many of that very magnitude go."""
    magnitudes = np.abs(flat)
    magnitudes.partition(n_removed - 1)  # in place: the one copy of the array is enough
    threshold = magnitudes[n_removed - 1]
    return threshold, n_removed - int(np.count_nonzero(magnitudes[:n_removed] < threshold))


def _ranges(grouped: Weights, kept: BoolArray | None) -> tuple[FloatArray, FloatArray, BoolArray | None]:
    """Minimum and maximum of each channel's weights that are kept and not zero, and where those are.

    Without any, both are zero. The mask is None if there are no zeros at all.
    """
    low = np.full(grouped.shape[1], np.inf, np.float32)
    high = -low

    for block in _blocks(grouped.shape):
        values = grouped[block].astype(np.float32, copy=False)
        nonzero = values != 0 if kept is None else kept[block] & (values != 0)
        complete = nonzero.all()
        if not complete:
            kept = np.ones(grouped.shape, np.bool_) if kept is None else kept
            kept[block] = nonzero

        channels = block[1]
        least, most = extremes(values, None if complete else nonzero, axis=(0, 2))
        np.minimum(low[channels], least, out=low[channels])
        np.maximum(high[channels], most, out=high[channels])

    return *limits(low, high), kept


def _grid(low: FloatArray, high: FloatArray, spec: GridSpec, *, dtype: npt.DTypeLike) -> Grid | None:
    """Scale and offset of each channel; None where they leave the normal numbers of float32 or of `dtype`."""
    with np.errstate(over="ignore", under="ignore"):
        span = span_between(low, high, spec)
        scale = step_of(span, spec)

    # below the normal numbers a scale loses digits, and codes no longer give the weights back
    negligible = scale < _LIMITS.tiny
    if not np.isfinite(span).all() or (negligible.all() and span.any()):
        return None

    scale[negligible] = 1
    offset = None if spec.symmetric else low
    largest = scale.astype(np.float64) * spec.codes[1]
    if offset is not None:
        largest += np.abs(offset.astype(np.float64))

    return Grid(spec, scale, offset) if largest.max(initial=0.0) < largest_in(dtype) else None


def _codes(grouped: Weights, grid: Grid, kept: BoolArray | None) -> npt.NDArray[np.integer]:
    """Nearest codes, same shape; 0 where a weight is not kept."""
    codes = np.empty(grouped.shape, np.int8 if grid.spec.symmetric else np.uint8)
    for block in _blocks(grouped.shape):
        channels = block[1]
        offset = None if grid.offset is None else grid.offset[channels]
        part = Grid(grid.spec, grid.scale[channels], offset)
        with np.errstate(over="ignore", under="ignore"):  # only where a weight is not kept
            values = codes_of(grouped[block].astype(np.float32, copy=False), part, axis=1)

        if kept is not None:
            values[~kept[block]] = 0
        codes[block] = values

    return codes
