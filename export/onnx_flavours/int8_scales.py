"""The int8 step of a weight whose values lie on few places: searched for all channels of a weight at once.

Each grid of values gets the scale at which rounding to int8 disturbs the outputs of the layer least. Only values
that occur count, so that a channel of nine weights costs nine values, whatever the width of its codes.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelpress.export.quantized import QuantizedTensor

Wide = npt.NDArray[np.float64]
_COARSEST = 0.6  # of the limit: the part of the int8 range that the largest weight must reach
_SWEEP = np.linspace(
    _COARSEST, 1, 1024
)  # of the int8 range: how much of it the largest weight is tried to fill
_MANY = 64  # values in use: of so many, a coarser step only adds error, unless it is a part of theirs
_FINE_SWEEP = np.linspace(0.95, 1, 32)  # for these
_WIDE = 6  # bits: of narrower codes, every scale is searched
_COMMON_WEIGHT = 0.5  # squared mean over variance of a rectified normal activation, roughly
_TIE = 1e-9  # of a squared step: scales of equal error but for rounding
_BLOCK_ELEMENTS = 1 << 17  # errors looked at at a time: what a processor's second cache holds


def least_error_scales(source: QuantizedTensor, step: Wide, start: Wide, limit: int) -> Wide:
    """The int8 step of each grid of a weight that disturbs the outputs least; of equals the finest.

    Args:
        source: The weight.
        step: Shape ``()`` or ``(out,)``: between the values of a grid.
        start: Same shape: the value of code 0.
        limit: Of the int8 codes.

    Returns:
        Same shape as `step`, positive.

    Example:
        >>> grid = QuantizedTensor(np.array([[-2, 0, 3]], np.int8), bits=3, scale=np.float32(0.5))
        >>> float(least_error_scales(grid, np.asarray(0.5), np.asarray(0.0), 127) * 42)  # 3 steps of 42 make 126
        0.5
    """
    counts, lowest = _code_counts(source)  # (out, codes)
    counts = counts.reshape(max(step.size, 1), -1, counts.shape[1])  # (grids, filters, codes)
    steps = step.reshape(-1)
    values = (np.arange(counts.shape[2]) + lowest) * steps[:, None] + start.reshape(-1)[:, None]
    occurs: npt.NDArray[np.bool_] = np.any(counts, axis=1)

    # exact zeros have the lowest code: it must not leave the limit either
    within = occurs.copy()
    within[:, 0] |= source.support is not None
    largest = np.abs(values * within).max(axis=1, initial=0.0)

    finest, in_use = largest / limit, occurs.sum(axis=1)
    scales, search = steps.copy(), largest > 0
    if source.bits > _WIDE and not start.any():
        parts = _whole_parts(steps, finest)
        scales, search = np.where(parts > 0, steps / np.maximum(parts, 1), steps), search & (parts == 0)

    def best(part: npt.NDArray[np.intp]) -> Wide:
        grids = _Grids.of(values[part], counts[part], occurs[part])
        return _best(grids, steps[part], finest[part], _sweep_of(int(in_use[part[0]])))

    blocks = [
        part
        for kind in (in_use > _MANY, in_use <= _MANY)
        for part in _parts(np.flatnonzero(search & kind), in_use)
    ]
    with ThreadPoolExecutor(os.cpu_count() or 1) as workers:  # NumPy lets others work while it computes
        for part, found in zip(blocks, workers.map(best, blocks), strict=True):
            scales[part] = found

    return scales.reshape(step.shape)


def _code_counts(source: QuantizedTensor) -> tuple[npt.NDArray[np.int64], int]:
    """How often each output channel uses each code, exact zeros aside, ``(out, codes)``; and the lowest code."""
    lowest, highest = source.code_range
    n_codes = highest - lowest + 1
    shape = [1] * len(source.shape)
    shape[source.channel_axis] = -1
    channel = np.arange(source.channels).reshape(shape)
    places = channel * n_codes + source.codes - lowest
    if source.support is not None:
        places = places[source.support]
    counts = np.bincount(places.reshape(-1), minlength=source.channels * n_codes).reshape(-1, n_codes)

    if source.offset is None:  # code 0 is the exact zero: to count it takes less than to pick all others
        counts[:, -lowest] = 0
    return counts, lowest


def _whole_parts(steps: Wide, finest: Wide) -> Wide:
    """In how many int8 steps a step of each grid falls where that loses nothing; 0 where it must lose.

    Codes on both sides of zero that fit are int8 codes already.
    """
    ratio = np.divide(steps, finest, out=np.zeros_like(steps), where=finest > 0)
    parts = np.floor(ratio * (1 + _TIE))
    return np.where(parts >= ratio * _COARSEST, parts, 0.0)


def _sweep_of(in_use: int) -> Wide:
    return _FINE_SWEEP if in_use > _MANY else _SWEEP


def _parts(search: npt.NDArray[np.intp], in_use: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.intp]]:
    """Grids of about as many values in use, as many as make a block of errors."""
    search = search[np.argsort(in_use[search], kind="stable")[::-1]]
    start = 0
    while start < len(search):
        most = int(in_use[search[start]])
        size = max(_BLOCK_ELEMENTS // (len(_sweep_of(most)) * max(most, 1)), 1)
        yield search[start : start + size]
        start += size


@dataclass(frozen=True)
class _Grids:
    """The values in use of some grids, side by side; where one has fewer than another, 0 is used by none.

    Attributes:
        values: Shape ``(grids, used)``.
        counts: Shape ``(grids, filters, used)``.
    """

    values: Wide
    counts: Wide

    @classmethod
    def of(cls, values: Wide, counts: npt.NDArray[np.int64], occurs: npt.NDArray[np.bool_]) -> "_Grids":
        width = int(occurs.sum(axis=1).max(initial=0))
        first = np.argsort(~occurs, axis=1, kind="stable")[:, :width]
        used = np.take_along_axis(occurs, first, axis=1)
        packed = np.take_along_axis(counts, first[:, None, :], axis=2).astype(np.float64)
        return cls(np.where(used, np.take_along_axis(values, first, axis=1), 0.0), packed)

    def errors(self, scales: Wide) -> Wide:
        """Of each scale, shape ``(grids, scales)``: squares of each weight's, and of each filter's sum."""
        # scales along the last axis, of which there are more than values: NumPy works along it at a time
        missed = self.values[:, :, None] / scales[:, None, :]  # (grids, used, scales), in steps
        missed -= np.rint(missed)

        sums = self.counts @ missed  # (grids, filters, scales)
        common = np.einsum("gfs,gfs->gs", sums, sums)
        np.square(missed, out=missed)
        scattered = (self.counts.sum(axis=1)[:, None, :] @ missed)[:, 0]
        return np.asarray((scattered + _COMMON_WEIGHT * common) * scales**2)


def _best(grids: _Grids, steps: Wide, finest: Wide, sweep: Wide) -> Wide:
    """One scale for each grid, from that at which the largest value meets the limit up to a coarse one."""
    highest = steps / finest * (1 + _TIE)
    lowest = np.ceil(steps / finest * _COARSEST)
    # integer fractions of the step: at them every value in use may be exact
    divisors = lowest[:, None] + np.arange(int((highest - lowest).max(initial=0.0)) + 1)
    fractions = steps[:, None] / np.maximum(divisors, 1)
    scales = np.sort(np.concatenate([fractions, finest[:, None] / sweep], axis=1), axis=1)
    allowed = (scales >= finest[:, None] * (1 - _TIE)) & (scales <= finest[:, None] / _COARSEST)

    total = np.where(allowed, grids.errors(scales), np.inf)
    tie = _TIE * steps**2 * grids.counts.sum(axis=(1, 2))
    place = np.argmax(total <= (total.min(axis=1) + tie)[:, None], axis=1)
    return np.asarray(scales[np.arange(len(place)), place])
