"""The price at which a model has a wanted size or loss, found in few evaluations."""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log

Measure = Callable[[float], float]
MAX_TRIALS = 8
_OCTAVES = 14  # from the first price, either way, before nothing is taken to change any more
_CLOSE = 0.015  # part of the wanted figure that may be left: near enough
_NOTHING = 1e-30  # a figure of zero has no logarithm


@dataclass(frozen=True)
class Found:
    """The end of a search.

    Attributes:
        price: The best that keeps the limit; None where none does.
        figure: There; where none does, the nearest that was seen.
    """

    price: float | None
    figure: float


def highest_price(figure: Measure, *, limit: float, start: float) -> Found:
    """The highest price whose figure, which rises with it, is at most `limit`.

    Args:
        figure: Measured anew at each call, a loss for one.
        limit: Above zero.
        start: The price to begin with.
    """
    return _searched(figure, limit=limit, start=start, rising=True)


def lowest_price(figure: Measure, *, limit: float, start: float) -> Found:
    """The lowest price whose figure, which falls with it, is at most `limit`; a size, for one.

    Example:
        >>> found = lowest_price(lambda price: 100 / price, limit=75, start=1.0)
        >>> found.price is not None and 73.8 < found.figure <= 75
        True
    """
    return _searched(figure, limit=limit, start=start, rising=False)


def _searched(figure: Measure, *, limit: float, start: float, rising: bool) -> Found:
    """Interpolation on logarithms of price and figure, between the nearest prices on either side of the limit."""
    direction = -1 if rising else 1  # towards lower figures
    seen: list[tuple[float, float]] = []  # in octaves, so that the figure falls; and its logarithm
    at, limit = 0.0, log(limit)
    for _ in range(MAX_TRIALS):
        value = figure(start * 2 ** (direction * at))
        seen.append((at, log(max(value, _NOTHING))))
        kept = [point for point in seen if point[1] <= limit]
        over = [point for point in seen if point[1] > limit]
        if kept and min(kept)[1] >= limit - _CLOSE:
            break
        following = _next(kept, over, limit)
        if following is None:
            break
        at = following

    kept = [point for point in seen if point[1] <= limit]
    if not kept:
        return Found(None, exp(min(point[1] for point in seen)))
    best = min(kept)
    return Found(start * 2 ** (direction * best[0]), exp(best[1]))


def _next(kept: list[tuple[float, float]], over: list[tuple[float, float]], limit: float) -> float | None:
    """Where to look next, in octaves; None where there is nothing left to find."""
    if not kept or not over:
        return _beyond(sorted(over or kept), limit, outwards=1 if over else -1)

    (low, high_value), (high, low_value) = max(over), min(kept)
    if high - low < 0.02:
        return None
    aim = limit - _CLOSE / 2
    share = (high_value - aim) / max(high_value - low_value, 1e-30)
    return low + (high - low) * min(max(share, 0.1), 0.95)


def _beyond(points: list[tuple[float, float]], limit: float, *, outwards: int) -> float | None:
    """On from points on one side: along the line through the outermost two, or an octave from a single one."""
    last, before = (points[-1], points[-2:-1]) if outwards > 0 else (points[0], points[1:2])
    if abs(last[0]) >= _OCTAVES:
        return None
    step = 1.0
    if before:
        slope = (last[1] - before[0][1]) / (last[0] - before[0][0])
        aim = limit - _CLOSE / 2
        wanted = outwards * (aim - last[1]) / slope if slope < 0 else _OCTAVES
        step = min(max(wanted, 0.1), max(abs(last[0]), 1.0) * 2)
    return min(max(last[0] + outwards * step, -_OCTAVES), _OCTAVES)
