"""Second-order rounding with rate."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from modelpress.export.rate.bit_costs import BitCosts, Neighbourhood, bits_of, classes_of
from modelpress.export.rate.rounding import Problem, conditional_variances, inverse_factor, rounded


def problem(*, groups=1, rows=6, columns=18, price=0.0, taps=9, seed=0):
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal((groups, 4 * columns, columns)) @ rng.standard_normal((columns, columns))
    hessian = samples.swapaxes(1, 2) @ samples / (4 * columns)
    importance = rng.uniform(0.5, 2, (groups, rows))
    weights = rng.standard_normal((groups, rows, columns))
    return Problem(weights, hessian, importance, price, Neighbourhood(taps, 3 if taps > 1 else 1))


def steps_of(problem, step=0.5):
    return np.full(problem.importance.shape, step)


def cost_of(problem, levels, steps):
    """The objective, its bits counted once for all that is compared."""
    error = problem.weights - levels * steps[:, :, None]
    loss = (((error @ problem.hessian) * error).sum(axis=2) * problem.importance).sum()
    return loss


def test_without_a_price_errors_are_handed_on_to_less_loss_than_that_of_the_nearest_codes():
    one = problem()
    steps = steps_of(one)
    nearest = np.rint(one.weights / steps[:, :, None])
    assert cost_of(one, rounded(one, steps, BitCosts()).levels, steps) < 0.5 * cost_of(one, nearest, steps)


def test_where_columns_do_not_work_together_the_nearest_codes_are_best():
    one = problem()
    one = Problem(one.weights, np.eye(18)[None], one.importance, 0.0, one.neighbourhood)
    expected = np.rint(one.weights / 0.5)
    assert_array_equal(rounded(one, steps_of(one), BitCosts()).levels, expected)


def test_a_sweep_ends_where_no_single_level_can_be_changed_for_less():
    one = problem(rows=3, columns=9)
    steps = steps_of(one)
    levels = rounded(one, steps, BitCosts(), sweeps=50).levels.astype(float)
    best = cost_of(one, levels, steps)
    for index in np.ndindex(levels.shape):
        # among the candidates: towards zero, or zero
        for other in (levels[index] - np.sign(levels[index]), 0.0):
            changed = levels.copy()
            changed[index] = other
            assert cost_of(one, changed, steps) >= best - 1e-9


def test_a_higher_price_takes_fewer_bits_and_in_the_end_none():
    bits, zeros = [], []
    for price in (0.0, 5.0, 50.0, 1e6):
        one = problem(rows=12, columns=36, price=price)
        found = rounded(one, steps_of(one), BitCosts())
        bits.append(found.bits)
        zeros.append(np.mean(found.levels == 0))
    assert bits == sorted(bits, reverse=True)
    assert zeros[0] < zeros[2] < zeros[3] == 1.0


def test_groups_share_nothing():
    both = problem(groups=2, price=0.1)
    costs = BitCosts(np.ones((16, 17)) * 1e6)  # so settled that no weight here changes them
    together = rounded(both, steps_of(both), costs).levels
    for g in range(2):
        part = slice(g, g + 1)
        alone = Problem(
            both.weights[part], both.hessian[part], both.importance[part], 0.1, both.neighbourhood
        )
        assert_array_equal(together[part], rounded(alone, steps_of(alone), costs).levels)


def test_blocks_of_columns_change_nothing(monkeypatch):
    one = problem(columns=45, price=0.1)
    expected = rounded(one, steps_of(one), BitCosts()).levels
    monkeypatch.setattr("modelpress.export.rate.rounding._BLOCK", 7)
    assert_array_equal(rounded(one, steps_of(one), BitCosts()).levels, expected)


def test_conditional_variances_multiply_to_the_determinant():
    hessian = problem().hessian
    assert_allclose(
        np.log(conditional_variances(inverse_factor(hessian))).sum(), np.linalg.slogdet(hessian)[1]
    )


def test_what_a_class_has_seen_often_becomes_cheap():
    costs = BitCosts()
    levels = np.array([[[3, 3, 3, 3, 0, -3]]], np.int16)
    before = bits_of(costs.counts)
    after = bits_of(costs.learned_from(np.repeat(levels, 50, axis=1), np.full((1, 50, 6), 4)))
    assert after[4, 3] < before[4, 3]
    assert after[4, 3] < after[4, 1]
    assert_array_equal(after[5], before[5])


@pytest.mark.parametrize("taps", [1, 9])
def test_the_class_of_a_column_is_that_of_the_whole_matrix(taps):
    near = Neighbourhood(taps, 3 if taps > 1 else 1)
    magnitudes = np.abs(np.random.default_rng(1).integers(-3, 4, (1, 5, 18))).astype(float)
    whole = classes_of(near.energies(magnitudes))
    rows, columns = near.row_means(magnitudes), magnitudes.mean(axis=1)
    for j in range(18):
        assert_array_equal(classes_of(near.energy(magnitudes, j, rows, columns)), whole[:, :, j])
