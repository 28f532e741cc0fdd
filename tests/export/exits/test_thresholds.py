"""Thresholds of early exits: what an exhaustive search finds, and no more loss than is allowed."""

from itertools import product

import numpy as np
import pytest

from modelpress.export.errors import InputError, ModelError
from modelpress.export.exits.plan import Exit, ExitPlan
from modelpress.export.exits.thresholds import NEVER, ExitRecord, choose_thresholds, confidences, frontier


def record_of(n=40, *, heads=(0.05, 0.05, 0.0), seed=0):
    """Exits that are the surer the righter, each better than the one before."""
    rng = np.random.default_rng(seed)
    sure = np.sort(rng.random((3, n)), axis=0)[:, rng.permutation(n)]
    right = rng.random((3, n)) < 0.3 + 0.65 * sure
    return ExitRecord(sure, right, np.array([0.4, 0.75, 1.1]), np.array(heads))


@pytest.mark.parametrize("seed", range(6))
def test_the_frontier_holds_points_that_no_thresholds_at_all_beat_in_price(seed):
    record = record_of(seed=seed)
    places = [np.append(np.unique(each) - 1e-9, NEVER) for each in record.confidence[:2]]
    every = [record.outcome(np.array(pair)) for pair in product(*places)]
    found = frontier(record)
    for price in (0.3, 1.0, 3.0):
        best = min(point.cost + price * (1 - point.top1) for point in every)
        assert min(point.cost + price * (1 - point.top1) for point in found) <= best + 0.01


def test_the_loss_is_kept_and_time_is_saved():
    record = record_of(400)
    last = record.right[-1].mean()
    point = choose_thresholds(record, loss=1.0)
    assert point.top1 > last - 0.01  # by a standard error at least
    assert point.cost < 1
    assert choose_thresholds(record, loss=5.0).cost <= point.cost


def test_a_head_that_costs_more_than_it_saves_is_not_used():
    never_sure = record_of(heads=(0.7, 0.7, 0.0))
    point = choose_thresholds(never_sure, loss=0.0)
    assert point.thresholds == (NEVER, NEVER)
    assert point.cost == pytest.approx(1.1 - 1.4)  # without both heads, whatever the numbers


def test_without_examples_nothing_is_chosen():
    empty = ExitRecord(np.empty((2, 0)), np.empty((2, 0), bool), np.array([0.5, 1.0]), np.zeros(2))
    with pytest.raises(InputError, match=r"held-out images, and there are none: set data\.validation"):
        choose_thresholds(empty, loss=0.5)


def test_confidence_is_that_of_the_rule():
    logits = np.log(np.array([[0.5, 0.3, 0.2], [0.9, 0.05, 0.05]], np.float32))
    np.testing.assert_allclose(confidences(logits, "probability"), [0.5, 0.9], rtol=1e-6)
    np.testing.assert_allclose(confidences(logits, "margin"), [0.2, 0.85], rtol=1e-6)


def test_a_plan_survives_its_text():
    plan = ExitPlan((Exit("a", 0.25), Exit("b.1")), "margin")
    assert ExitPlan.from_text(plan.text()) == plan
    assert [exit.after for exit in plan.used] == ["a"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"rule": "luck", "exits": [{"after": "a", "threshold": 1}]}',
        '{"rule": "margin", "exits": []}',
        '{"rule": "margin", "exits": [{"after": 3, "threshold": 1}]}',
        '{"rule": "margin", "exits": [{"after": "a", "threshold": NaN}]}',
        '{"rule": "margin", "exits": [{"after": "a", "threshold": "1"}]}',
    ],
)
def test_a_damaged_plan_is_refused(text):
    with pytest.raises(ModelError, match="early exits is damaged"):
        ExitPlan.from_text(text)
