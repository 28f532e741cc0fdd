"""How good outputs are, whatever the task: a figure with its sampling error, and the test of a difference.

A metric says what each example contributes (its *terms*) and how the mean of these becomes the figure: so most figures
are resampled at once. Where examples are right or wrong the interval is Wilson's and the test McNemar's; elsewhere both
come from a bootstrap over examples.

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 13 and 16.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelpress.benchmarks.measures.accuracy import is_right, paired_test, wilson_interval
from modelpress.benchmarks.measures.outputs import Array, Outputs
from modelpress.benchmarks.records import MetricRecord, PairedBootstrap, PairedTest
from modelpress.export.errors import InputError

Targets = Array | Mapping[str, Array]
Measure = Callable[[Outputs, Targets], Any]
IGNORED = -100  # a place of a sequence without a class, as torch's losses have it
RESAMPLES = 1000
_FEWER = 200  # where a metric of the user's own is asked again for each
_SEED = 0
_BLOCK = 50  # resamples at a time


@dataclass(frozen=True)
class Metric:
    """A figure of merit.

    Attributes:
        name: As reports show it.
        of_each: From outputs and targets to terms, shape ``(n,)`` or ``(n, k)``; or to one number, of all examples.
        combine: From mean terms, shape ``(..., k)``, to figures; None: the terms are figures themselves.
        lower_is_better: As of errors.
        fraction: Shown in percent.
    """

    name: str
    of_each: Measure
    combine: Callable[[Array], Array] | None = None
    lower_is_better: bool = False
    fraction: bool = True

    def better(self, this: float, other: float) -> bool:
        """Whether one figure is better than another."""
        return this < other if self.lower_is_better else this > other

    def shown(self, value: float) -> str:
        """For people.

        Example:
            >>> TOP1.shown(0.9)
            '90.00%'
        """
        return f"{value:.2%}" if self.fraction else f"{value:.4g}"


def value_of(metric: Metric, outputs: Outputs, targets: Targets) -> float:
    """The figure.

    Raises:
        InputError: Outputs and targets do not fit, or the metric gives no number.

    Example:
        >>> value_of(ABSOLUTE_ERROR, np.array([[1.0], [4.0]]), np.array([[1.5], [4.5]]))
        0.5
    """
    terms = terms_of(metric, outputs, targets)
    return float(terms) if terms.ndim == 0 else float(_combined(metric, terms.mean(axis=0)))


def terms_of(metric: Metric, outputs: Outputs, targets: Targets) -> Array:
    """What each example contributes, or one number.

    Raises:
        InputError: As in `value_of`.
    """
    try:
        found = np.asarray(metric.of_each(outputs, targets))
    except InputError:
        raise
    except Exception as error:  # whatever the user's code raises
        raise InputError(f"metric {metric.name} raised {type(error).__name__}: {error}") from error

    n = n_examples(targets)
    if found.dtype.kind not in "biuf" or (found.ndim and len(found) != n):
        raise InputError(
            f"metric {metric.name} gives {found.dtype} of shape {found.shape} for {n} examples; expected one number, "
            "or one for each example"
        )
    if not np.isfinite(found).all():
        raise InputError(f"metric {metric.name} gives NaN or infinity")
    return found


def measure(metric: Metric, outputs: Outputs, targets: Targets) -> MetricRecord:
    """The figure with its 95 % interval.

    Raises:
        InputError: As in `value_of`.

    Example:
        >>> record = measure(TOP1, np.eye(4)[[0, 1, 2, 0]], np.arange(4))
        >>> record.value, [round(bound, 3) for bound in record.interval]
        (0.75, [0.301, 0.954])
    """
    terms, n = terms_of(metric, outputs, targets), n_examples(targets)
    if terms.dtype == np.bool_ and terms.ndim == 1:
        value = float(terms.mean())
        interval = wilson_interval(value, n)
    else:
        value = value_of(metric, outputs, targets)
        interval = _quantiles(_resampled(metric, terms, outputs, targets))
    return MetricRecord(
        name=metric.name,
        value=value,
        interval=interval,
        n_examples=n,
        lower_is_better=metric.lower_is_better,
        fraction=metric.fraction,
    )


def compare(
    metric: Metric, baseline: Outputs, this: Outputs, targets: Targets
) -> PairedTest | PairedBootstrap:
    """Is the difference of two models on the same examples more than chance?

    Raises:
        InputError: As in `value_of`.

    Example:
        >>> truth = np.linspace(0, 1, 50)[:, None]
        >>> test = compare(ABSOLUTE_ERROR, truth + 0.1, truth + 0.2, truth)
        >>> round(test.difference, 3), test.p_value < 0.01
        (0.1, True)
    """
    a, b = terms_of(metric, baseline, targets), terms_of(metric, this, targets)
    if a.dtype == b.dtype == np.bool_ and a.ndim == 1:
        return paired_test(a, b)

    # the same examples in every resample, so that what is hard for both cancels
    differences = _resampled(metric, b, this, targets) - _resampled(metric, a, baseline, targets)
    below, above = float(np.mean(differences <= 0)), float(np.mean(differences >= 0))
    n = len(differences)
    return PairedBootstrap(
        difference=value_of(metric, this, targets) - value_of(metric, baseline, targets),
        interval=_quantiles(differences),
        p_value=min(1.0, 2 * max(min(below, above), 1 / n)),
        resamples=n,
    )


def n_examples(targets: Targets) -> int:
    """Rows of the targets."""
    return len(next(iter(targets.values())) if isinstance(targets, Mapping) else targets)


def _resampled(metric: Metric, terms: Array, outputs: Outputs, targets: Targets) -> Array:
    """The figure on examples drawn with repetition, once for each resample; equal draws for equal `n`."""
    rng, n = np.random.default_rng(_SEED), n_examples(targets)
    if terms.ndim == 0:
        draws = (rng.integers(0, n, n) for _ in range(_FEWER))
        return np.array([value_of(metric, _rows(outputs, d), _rows(targets, d)) for d in draws])

    table = terms.reshape(n, -1).astype(np.float64)
    parts = []
    for start in range(0, RESAMPLES, _BLOCK):
        drawn = rng.integers(0, n, (min(_BLOCK, RESAMPLES - start), n))
        means = np.stack([np.bincount(row, minlength=n) for row in drawn]) @ table / n
        parts.append(_combined(metric, means[:, 0] if terms.ndim == 1 else means))
    return np.concatenate(parts)


def _combined(metric: Metric, means: Array) -> Array:
    return means if metric.combine is None else np.asarray(metric.combine(means))


def _quantiles(values: Array) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _rows(values: Outputs, index: Array) -> Outputs:
    if isinstance(values, Mapping):
        return {name: array[index] for name, array in values.items()}
    return np.asarray(values[index])


def _single(values: Outputs, what: str) -> Array:
    if isinstance(values, Mapping):
        raise InputError(
            f"there are {len(values)} {what} ({', '.join(values)}); give a metric of your own (task.metric) that says "
            "which counts"
        )
    return values


def _tables(outputs: Outputs, targets: Targets) -> tuple[Array, Array]:
    """The only output and target, of one shape.

    Raises:
        InputError: Their shapes differ.
    """
    found, wanted = _single(outputs, "outputs"), _single(targets, "targets")
    if found.shape != wanted.shape and found.size == wanted.size and len(found) == len(wanted):
        found = found.reshape(wanted.shape)  # (n,) and (n, 1) are the same numbers
    if found.shape != wanted.shape:
        raise InputError(f"outputs have shape {found.shape}, targets {wanted.shape}; expected the same")
    return found, wanted


def _right(outputs: Outputs, targets: Targets) -> Array:
    return is_right(_single(outputs, "outputs"), _single(targets, "targets"))


def _found_labels(outputs: Outputs, targets: Targets) -> Array:
    """True positives, positives found and positives there are, of each example."""
    found, wanted = _tables(outputs, targets)
    positive, true = found > 0, wanted > 0.5
    return np.stack([(positive & true).sum(1), positive.sum(1), true.sum(1)], axis=1)


def _f1(means: Array) -> Array:
    total = means[..., 1] + means[..., 2]
    return np.where(total > 0, 2 * means[..., 0] / np.maximum(total, 1e-300), 1.0)


def _errors(outputs: Outputs, targets: Targets) -> Array:
    found, wanted = _tables(outputs, targets)
    differences = np.abs(found.astype(np.float64) - wanted)
    return np.asarray(differences.reshape(len(wanted), -1).mean(axis=1))


def _right_places(outputs: Outputs, targets: Targets) -> Array:
    """Places that are right, and places that count, of each sequence."""
    found, wanted = _single(outputs, "outputs"), _single(targets, "targets")
    if found.ndim != 3 or found.shape[:2] != wanted.shape:
        raise InputError(
            f"outputs have shape {found.shape}, targets {wanted.shape}; expected (n, places, classes) and (n, places)"
        )
    counts = wanted != IGNORED
    return np.stack([((found.argmax(axis=2) == wanted) & counts).sum(1), counts.sum(1)], axis=1)


def _ratio(means: Array) -> Array:
    return np.asarray(means[..., 0] / np.maximum(means[..., 1], 1e-300))


TOP1 = Metric("top-1", _right)
MICRO_F1 = Metric("micro F1", _found_labels, _f1)
ABSOLUTE_ERROR = Metric("mean absolute error", _errors, lower_is_better=True, fraction=False)
PLACES = Metric("places right", _right_places, _ratio)
