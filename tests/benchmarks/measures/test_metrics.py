"""Figures of every task, their intervals, and whether two models differ."""

import numpy as np
import pytest

from modelpress.benchmarks.measures.metrics import (
    ABSOLUTE_ERROR,
    MICRO_F1,
    PLACES,
    TOP1,
    Metric,
    compare,
    measure,
    value_of,
)
from modelpress.benchmarks.records import PairedBootstrap, PairedTest
from modelpress.export.errors import InputError

RNG = np.random.default_rng(0)


def test_micro_f1_is_that_of_all_labels_together():
    outputs, wanted = RNG.normal(size=(200, 5)), RNG.integers(0, 2, (200, 5))
    found = list(zip((outputs > 0).ravel().tolist(), (wanted == 1).ravel().tolist(), strict=True))
    hits, misses, false = (found.count(kind) for kind in ((True, True), (False, True), (True, False)))
    assert value_of(MICRO_F1, outputs, wanted) == pytest.approx(2 * hits / (2 * hits + misses + false))


def test_places_without_a_class_do_not_count():
    outputs = np.eye(3)[[[0, 1, 2], [2, 2, 2]]]
    labels = np.array([[0, 1, -100], [2, 0, -100]])
    assert value_of(PLACES, outputs, labels) == 0.75


def test_an_interval_covers_what_its_name_says():
    inside = 0
    for seed in range(100):
        errors = np.random.default_rng(seed).exponential(1.0, (80, 1))
        low, high = measure(ABSOLUTE_ERROR, errors, np.zeros((80, 1))).interval
        inside += low <= 1.0 <= high
    assert 85 <= inside <= 99


def test_right_or_wrong_is_tested_by_mcnemar_and_all_else_by_a_bootstrap():
    labels = RNG.integers(0, 4, 300)
    good, bad = np.eye(4)[labels], np.eye(4)[(labels + (np.arange(300) < 30)) % 4]
    test = compare(TOP1, good, bad, labels)
    assert isinstance(test, PairedTest)
    assert (test.n_only_baseline, test.n_only_this) == (30, 0)

    truth = RNG.normal(size=(300, 2))
    test = compare(ABSOLUTE_ERROR, truth + 0.1, truth + 0.1 + 0.02 * RNG.normal(size=(300, 1)), truth)
    assert isinstance(test, PairedBootstrap)
    assert test.interval[0] <= test.difference <= test.interval[1]
    assert compare(ABSOLUTE_ERROR, truth, truth, truth).p_value == 1.0
    assert compare(ABSOLUTE_ERROR, truth, truth + 1, truth).p_value < 0.01


def test_a_metric_of_ones_own_may_give_one_number():
    metric = Metric("r2", lambda y, t: 1 - ((y - t) ** 2).sum() / ((t - t.mean()) ** 2).sum(), fraction=False)
    truth = RNG.normal(size=(100, 1))
    record = measure(metric, truth + 0.1, truth)
    assert record.interval[0] <= record.value <= record.interval[1] < 1


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda y, t: 1 / 0, "metric mine raised ZeroDivisionError"),
        (lambda y, t: np.zeros(3), r"gives float64 of shape \(3,\) for 5 examples"),
        (lambda y, t: float("nan"), "gives NaN or infinity"),
    ],
)
def test_a_metric_that_fails_is_named(function, said):
    with pytest.raises(InputError, match=said):
        measure(Metric("mine", function), np.zeros((5, 1)), np.zeros((5, 1)))
