"""Accuracy with its sampling error, and the test of a difference on the same images."""

from collections.abc import Mapping
from math import sqrt

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from modelpress.benchmarks.measures.outputs import Examples, Outputs, outputs_of
from modelpress.benchmarks.records import PairedTest
from modelpress.export.errors import InputError
from modelpress.export.runtime import run_batched, single_input

_Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
CLASSIFIED_AT_ONCE = 256

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def is_right(logits: Logits, labels: Labels, *, k: int = 1) -> npt.NDArray[np.bool_]:
    """For each row whether its label is among the `k` largest logits; of equal logits, the first counts as larger.

    Example:
        >>> is_right(np.array([[0, 2, 1], [3, 3, 0]], np.float32), np.array([2, 1]), k=2).tolist()
        [True, True]
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    # argmax takes the first of equal logits; so does this, for every k
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    larger = (logits > own) | ((logits == own) & earlier)
    return np.asarray(np.count_nonzero(larger, axis=1) < k)


def top1(logits: Logits, labels: Labels) -> float:
    """Fraction of rows whose largest logit is the label's.

    Example:
        >>> top1(np.array([[0, 1], [1, 0]], np.float32), np.array([1, 1]))
        0.5
    """
    return float(np.mean(is_right(logits, labels)))


def top5(logits: Logits, labels: Labels) -> float | None:
    """Fraction of rows whose label is among the five largest logits; None where five are all there are.

    Example:
        >>> top5(np.arange(6, dtype=np.float32)[None], np.array([1])), top5(np.zeros((1, 5)), np.array([1]))
        (1.0, None)
    """
    return float(np.mean(is_right(logits, labels, k=5))) if logits.shape[1] > 5 else None


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


def paired_test(baseline: npt.NDArray[np.bool_], this: npt.NDArray[np.bool_]) -> PairedTest:
    """Exact McNemar test on which images two models get right, in the same order.

    Images that both get right, or both wrong, say nothing about a difference; were the models equally good, the others
    would fall to either side like a fair coin.

    Example:
        >>> right = np.arange(100) < 90
        >>> test = paired_test(right, right & (np.arange(100) >= 10))
        >>> test.n_only_baseline, test.n_only_this, round(test.p_value, 4)
        (10, 0, 0.002)

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages".
    """
    from scipy.stats import binomtest

    only_baseline = int(np.count_nonzero(baseline & ~this))
    only_this = int(np.count_nonzero(this & ~baseline))
    differing = only_baseline + only_this
    p_value = float(binomtest(only_this, differing).pvalue) if differing else 1.0
    return PairedTest(n_only_baseline=only_baseline, n_only_this=only_this, p_value=p_value)


def classify(
    session: ort.InferenceSession,
    images: Examples | Mapping[str, Examples],
    *,
    batch: int = CLASSIFIED_AT_ONCE,
) -> Logits:
    """Logits of all images; a model whose batch axis is fixed gets batches of that size, the last one filled up.

    Args:
        session: The model.
        images: Network input, or rows that become it when they are asked for; by name for a model of several inputs.
        batch: Images at a time, where the model takes any number.

    Raises:
        InputError: There are no images, or they do not fit the model.
    """
    if isinstance(images, Mapping):
        if len(images) > 1:
            return _table(outputs_of(session, images, batch=batch))
        (images,) = images.values()
    if not len(images):
        raise InputError("the data set holds no images to measure the accuracy on")

    first = (single_input(session).shape or [None])[0]
    fixed = first if isinstance(first, int) and first > 0 else None
    batch = fixed or batch
    # a fixed batch is filled up with the last image, whose extra logits are dropped
    last = len(images) - 1
    starts = range(0, len(images), batch)
    chosen = (
        np.minimum(np.arange(start, start + batch), last) if fixed else slice(start, start + batch)
        for start in starts
    )
    return np.concatenate([run_batched(session, images[rows], batch=batch) for rows in chosen])[: len(images)]


def _table(outputs: Outputs) -> Logits:
    if isinstance(outputs, Mapping) or outputs.ndim != 2:
        raise InputError("the model's output is no single table of logits")
    return outputs
