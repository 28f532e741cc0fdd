"""Faster, same or slower? A ratio with an interval, from measurements that took turns."""

from collections.abc import Sequence
from math import exp, log, sqrt
from statistics import mean, median, stdev

from modelpress.benchmarks.records import VerdictName, VerdictRecord

FASTER_BELOW, SLOWER_ABOVE = 0.98, 1.02  # a difference within 2 % is of no use to anybody
SAME_WITHIN = (0.9, 1.11)  # an interval that reaches further cannot tell "same"
_MIN_ROUNDS = 3
_CONFIDENCE = 0.95

Interval = tuple[float, float]


def mean_interval(values: Sequence[float]) -> Interval | None:
    """95 % confidence interval of the mean, by Student's t over independent values (here: one per round).

    None for fewer than two values. Calls within a round are no independent values: they share a process and a state of
    the machine, and an interval over thousands of them would be far too narrow.

    Example:
        >>> low, high = mean_interval([1.0, 2.0, 3.0])
        >>> round(low, 3), round(high, 3)
        (-0.484, 4.484)

    Source: Student 1908, "The probable error of a mean"; Georges et al. 2007, "Statistically rigorous Java performance
    evaluation", section 3.3, for processes as the unit.
    """
    if len(values) < 2:
        return None
    from scipy.stats import t

    centre = mean(values)
    half = float(t.ppf(0.5 + _CONFIDENCE / 2, len(values) - 1)) * stdev(values) / sqrt(len(values))
    return centre - half, centre + half


def compare_rounds(
    baseline: Sequence[Sequence[float]], this: Sequence[Sequence[float]], *, batch: int, threads: int
) -> VerdictRecord:
    """Compare two models by what was timed in the same rounds.

    Each round gives one ratio of medians; what slows the machine for a whole round cancels in it. The ratio is their
    geometric mean, its interval Student's t on the logarithms. The rule, in this order:

    - *undecided*: fewer than three rounds;
    - *faster*: the interval lies below 0.98; *slower*: above 1.02;
    - *same*: it lies within 0.9 to 1.11: no difference beyond 2 % is shown. It is no proof that there is none: what
      the interval still leaves possible is as much as its ends say;
    - *undecided*: it is wider. More rounds, or a quieter machine, narrow it.

    Args:
        baseline: Times by round, in any unit; the i-th round of both models was the same.
        this: The same for the model judged.
        batch: What was timed, for the record.
        threads: What was timed, for the record.

    Example:
        >>> twice = compare_rounds([[2, 2], [4, 4], [3, 3]], [[1, 1], [2, 2], [1.5, 1.5]], batch=1, threads=1)
        >>> round(twice.ratio, 3), twice.verdict
        (0.5, 'faster')
    """
    # ratios are averaged as logarithms, so that a:b and b:a give reciprocal results
    logs = [log(median(ours) / median(reference)) for reference, ours in zip(baseline, this, strict=True)]
    interval = mean_interval(logs) if len(logs) >= _MIN_ROUNDS else None
    ratios = None if interval is None else (exp(interval[0]), exp(interval[1]))

    return VerdictRecord(
        batch=batch,
        threads=threads,
        ratio=exp(mean(logs)),
        ratio_interval=ratios,
        min_ratio=min(map(min, this)) / min(map(min, baseline)),
        rounds=len(logs),
        verdict=verdict_of(ratios),
    )


def verdict_of(interval: Interval | None) -> VerdictName:
    """The rule of `compare_rounds`, on the interval of the ratio.

    Example:
        >>> [verdict_of(i) for i in [(0.4, 0.5), (0.97, 1.01), (1.03, 1.2), (0.85, 1.1), None]]
        ['faster', 'same', 'slower', 'undecided', 'undecided']
    """
    if interval is None:
        return "undecided"
    if interval[1] < FASTER_BELOW:
        return "faster"
    if interval[0] > SLOWER_ABOVE:
        return "slower"
    return "same" if SAME_WITHIN[0] <= interval[0] and interval[1] <= SAME_WITHIN[1] else "undecided"
