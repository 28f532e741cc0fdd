"""Top-1 accuracy with its sampling error."""

from math import sqrt

import numpy as np
import numpy.typing as npt

_Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def top1(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """Fraction of rows whose largest logit is the label's.

    Example:
        >>> top1(np.array([[0, 1], [1, 0]], np.float32), np.array([1, 1]))
        0.5
    """
    return float(np.mean(logits.argmax(axis=1) == labels))


def wilson_interval(fraction: float, n: int) -> tuple[float, float]:
    """95 % confidence interval of a fraction measured on `n` independent images.

    Example:
        >>> [round(bound, 4) for bound in wilson_interval(0.915, 10_000)]
        [0.9094, 0.9203]

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    centre = (fraction + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 * sqrt(fraction * (1 - fraction) / n + _Z95**2 / (4 * n * n)) / (1 + _Z95**2 / n)
    return min(fraction, centre - half), max(fraction, centre + half)  # equal at 0 and 1, but for rounding
