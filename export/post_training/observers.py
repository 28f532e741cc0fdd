"""What is remembered of an activation while data run through a network, and the range that is chosen from it."""

from dataclasses import dataclass, field
from math import gcd

import numpy as np
import numpy.typing as npt

Range = tuple[float, float]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_LEVELS = 255  # steps of an unsigned byte
_CANDIDATES = 128  # bounds tried on each side
_ROUNDS = 2  # of choosing the upper bound for a lower one, and the other way round
_UNSEEN = 1e-4  # counts in a bin of no values, so that the divergence stays finite
# values whose places, which take several times their memory, lie in a processor's second cache
_BLOCK = 1 << 16
_ENTROPY_STRIDE = 8  # bins between thresholds tried
_COUNTED = 1 << 17  # values of an activation and a call: with all of them, errors are hardly other


@dataclass
class Extremes:
    """Smallest and largest value so far, 0 among them."""

    low: float = 0.0
    high: float = 0.0

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Take more values into account."""
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    def range(self) -> Range:
        """The two."""
        return self.low, self.high


@dataclass
class Histogram:
    """Counts in bins of equal width between two extremes; exact zeros, which every grid represents, apart.

    Attributes:
        low: Lower edge of the first bin, at most 0.
        high: Upper edge of the last, at least 0.
        counts: One for each bin.
        zeros: Number of exact zeros.
    """

    low: float
    high: float
    counts: Counts
    zeros: int = 0
    edges: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.edges = np.linspace(self.low, self.high, len(self.counts) + 1)

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Take more values into account; those outside count in the outermost bins."""
        if self.high <= self.low:
            self.zeros += values.size
            return

        (at_zero,) = self._places(np.zeros(1, np.float32))
        flat = values.reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            block = flat[start : start + _BLOCK]
            zeros = block.size - int(np.count_nonzero(block))
            self.counts += np.bincount(self._places(block), minlength=len(self.counts))
            self.counts[at_zero] -= zeros  # counted with the rest: to pick them out beforehand takes longer
            self.zeros += zeros

    def _places(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
        """The bin of each value."""
        places = np.subtract(values, self.low, dtype=np.float64)
        places /= self.high - self.low
        places *= len(self.counts)
        return np.clip(places, 0, len(self.counts) - 1, out=places).astype(np.intp)

    @property
    def centres(self) -> Floats:
        """The value that stands for a bin."""
        return (self.edges[:-1] + self.edges[1:]) / 2


class GrowingHistogram:
    """Counts of some values of each call, in bins whose edges are multiples of a width; exact zeros left out.

    Extremes need not be known beforehand: where values lie beyond the bins, two bins become one until they do not.

    Args:
        bins: On each side of zero; even.
        most: Values of a call that are counted, spread over all of them.
    """

    def __init__(self, *, bins: int, most: int = _COUNTED) -> None:
        self._bins, self._most = bins, most
        self._width = 0.0
        self._counts = np.zeros(2 * bins, np.int64)

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Take more values into account."""
        stride = max(-(-values.size // self._most), 1)
        while gcd(stride, values.size) > 1:  # else the same channels or columns are met again and again
            stride += 1
        some = values.reshape(-1)[::stride].astype(np.float64)

        farthest = max(float(some.max(initial=0.0)), -float(some.min(initial=0.0)))
        if not farthest:
            return
        self._reach(farthest)
        n_zeros = some.size - np.count_nonzero(some)

        some /= self._width
        some += self._bins  # so that places are positive, and cut off where they are to be rounded down
        places = np.minimum(some, len(self._counts) - 1, out=some).astype(np.intp)
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._counts[self._bins] -= n_zeros

    def _reach(self, farthest: float) -> None:
        """Widen the bins."""
        if not self._width:
            self._width = farthest / self._bins
        while self._width * self._bins < farthest:
            self._width *= 2
            merged = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.pad(merged, self._bins // 2)

    def histogram(self) -> Histogram:
        """From the first bin that holds something to the last, and zero."""
        seen = np.flatnonzero(self._counts)
        if not seen.size:
            return Histogram(0.0, 0.0, self._counts)

        first, end = min(seen[0], self._bins), max(seen[-1] + 1, self._bins)
        low, high = ((edge - self._bins) * self._width for edge in (first, end))
        return Histogram(float(low), float(high), self._counts[first:end])


def percentile_range(histogram: Histogram, percentile: float) -> Range:
    """Bounds beyond which lie ``100 - percentile`` per cent of the values, on each side that has values.

    Example:
        >>> h = Histogram(0.0, 10.0, np.array([50, 40, 9, 1, 0, 0, 0, 0, 0, 0]))
        >>> percentile_range(h, 90.0)
        (0.0, 2.0)
    """
    beyond = (1 - percentile / 100) * (int(histogram.counts.sum()) + histogram.zeros)
    from_below = np.concatenate([[0], np.cumsum(histogram.counts)])  # values below each edge
    below = from_below + np.where(histogram.edges > 0, histogram.zeros, 0)
    above = below[-1] - below
    high = histogram.edges[np.argmax(above <= beyond + 1e-6)]
    low = histogram.edges[len(below) - 1 - np.argmax((below <= beyond + 1e-6)[::-1])]
    return min(float(low), 0.0), max(float(high), 0.0)


def least_error_range(histogram: Histogram) -> Range:
    """Bounds of least mean-squared error between values and their uint8 codes.

    Values beyond a bound are clipped to it; values within lose up to half a step of the grid.
    """
    low, high = histogram.low, histogram.high
    shares = np.arange(1, _CANDIDATES + 1) / _CANDIDATES
    seen = np.flatnonzero(histogram.counts)  # empty bins are many behind outliers
    values, counts = histogram.centres[seen], histogram.counts[seen].astype(np.float64)

    for _ in range(_ROUNDS if low < 0 < high else 1):
        if histogram.high > 0:
            candidates = histogram.high * shares
            high = float(candidates[np.argmin(_squared_errors(values, counts, low, candidates))])
        if histogram.low < 0:
            candidates = histogram.low * shares
            low = float(candidates[np.argmin(_squared_errors(values, counts, candidates, high))])

    return low, high


def _squared_errors(values: Floats, counts: Floats, low: Floats | float, high: Floats | float) -> Floats:
    """Of each range, one of whose bounds is an array; in place, as the arrays of all ranges are large."""
    step = np.reshape((high - low) / _LEVELS, (-1, 1))
    zero_point = np.rint(-np.reshape(low, (-1, 1)) / step)
    errors = values / step

    np.rint(errors, out=errors)
    np.clip(errors, -zero_point, _LEVELS - zero_point, out=errors)
    errors *= step
    errors -= values
    np.square(errors, out=errors)
    summed: Floats = errors @ counts
    return summed


def entropy_range(histogram: Histogram) -> Range:
    """Bounds whose 8-bit distribution has the least Kullback-Leibler divergence from the true one.

    Magnitudes are looked at: one threshold cuts both sides.

    Source: Migacz 2017, "8-bit Inference with TensorRT", GPU Technology Conference.
    """
    two_sided = histogram.low < 0 < histogram.high
    levels = (_LEVELS + 1) // 2 if two_sided else _LEVELS + 1
    n_bins = len(histogram.counts)

    largest = max(-histogram.low, histogram.high)
    if largest == 0:
        return 0.0, 0.0

    places = np.minimum((np.abs(histogram.centres) / largest * n_bins).astype(np.int64), n_bins - 1)
    counts = np.bincount(places, histogram.counts, n_bins).astype(np.float64)
    thresholds = [*range(levels, n_bins, _ENTROPY_STRIDE), n_bins]
    best = thresholds[int(np.argmin([_divergence(counts, n, levels) for n in thresholds]))]
    threshold = largest * best / n_bins

    return max(histogram.low, -threshold), min(histogram.high, threshold)


def _divergence(counts: Floats, n_kept: int, levels: int) -> float:
    """Of the first bins, with all beyond put into the last one, from the same bins merged into few levels."""
    kept = counts[:n_kept]
    if kept.sum() < counts.sum() / 2:
        return (
            np.inf
        )  # most values would be clipped: where all are, both distributions are one bin, and equal

    reference = kept.copy()
    reference[-1] += counts[n_kept:].sum()
    level = np.arange(n_kept) * levels // n_kept
    occupied = kept > 0
    mass = np.bincount(level, kept, levels)
    members = np.bincount(level, occupied, levels)
    merged = np.where(occupied, (mass / np.maximum(members, 1))[level], 0.0)
    present = reference > 0
    merged[present & ~occupied] = _UNSEEN  # the last bin, where nothing but clipped values fall into it
    p, q = reference[present] / reference.sum(), merged[present] / merged.sum()

    return float(np.sum(p * np.log(p / q)))
