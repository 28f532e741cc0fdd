import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import Lasso

from modelpress.export.errors import InputError
from modelpress.toolkit.progress import Silent
from modelpress.toolkit.sparse_regression.objectives import LeastSquares, largest_eigenvalue
from modelpress.toolkit.sparse_regression.optimality import judge
from modelpress.toolkit.sparse_regression.penalties import L1, AtMost, GroupLasso, NoPenalty, TrimmedL1
from modelpress.toolkit.sparse_regression.prox import (
    block_soft_threshold,
    keep_largest,
    largest,
    soft_threshold,
    trimmed_soft_threshold,
)
from modelpress.toolkit.sparse_regression.solvers import STEPS, minimise
from modelpress.toolkit.studies.sparse_series.lasso_speed import (
    OURS,
    SCIKIT_LEARN,
    SpeedProblem,
    measure_lasso_speed,
)

seeds = st.integers(0, 10_000)


def random_problem(seed, n=None, d=None, *, weight=None):
    rng = np.random.default_rng(seed)
    n, d = n or int(rng.integers(3, 40)), d or int(rng.integers(3, 40))
    X = rng.standard_normal((n, d))
    w = np.where(rng.random(d) < 0.4, rng.standard_normal(d), 0)
    return LeastSquares(X, X @ w + 0.1 * rng.standard_normal(n), weight=weight or 1 / (2 * n))


# proximal operators


def grid_minimum(objective, low=-3.0, high=3.0, points=60_001):
    grid = np.linspace(low, high, points)
    values = objective(grid)
    return float(values.min())


@given(st.floats(-2, 2), st.floats(0, 2))
def test_soft_threshold_beats_a_grid_search(v, threshold):
    def objective(w):
        return 0.5 * (w - v) ** 2 + threshold * np.abs(w)

    found = soft_threshold(np.array([v]), threshold)
    assert objective(found)[0] <= grid_minimum(objective) + 1e-12


@given(seeds, st.integers(0, 3), st.floats(0, 1.5))
def test_prox_of_several_weights_beats_a_grid_search(seed, k, threshold):
    v = np.random.default_rng(seed).uniform(-1.5, 1.5, 3)
    axis = np.linspace(-1.5, 1.5, 61)
    grid = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3)
    magnitudes = np.sort(np.abs(grid), axis=1)
    distance = 0.5 * ((grid - v) ** 2).sum(axis=1)

    w = trimmed_soft_threshold(v, threshold, k)
    own = 0.5 * ((w - v) ** 2).sum() + threshold * np.sort(np.abs(w))[: 3 - k].sum()
    assert own <= (distance + threshold * magnitudes[:, : 3 - k].sum(axis=1)).min() + 1e-12

    w = keep_largest(v, k)
    assert np.count_nonzero(w) <= k
    feasible = np.count_nonzero(np.abs(grid) > 1e-12, axis=1) <= k
    assert 0.5 * ((w - v) ** 2).sum() <= distance[feasible].min() + 1e-12

    w = block_soft_threshold(v[None], np.array([threshold]))[0]
    own = 0.5 * ((w - v) ** 2).sum() + threshold * np.linalg.norm(w)
    assert own <= (distance + threshold * np.linalg.norm(grid, axis=1)).min() + 1e-12


def test_operators_set_exact_zeros_and_break_ties_by_position():
    v = np.array([0.3, -0.3, 0.1, 0.3])
    assert_array_equal(largest(v, 2), [False, True, False, True])
    assert_array_equal(keep_largest(v, 2), [0, -0.3, 0, 0.3])
    assert_array_equal(soft_threshold(v, 0.3), np.zeros(4))
    assert not np.signbit(soft_threshold(v, 0.3)).any()
    assert_array_equal(block_soft_threshold(np.zeros((2, 3)), np.zeros(2)), np.zeros((2, 3)))


@given(seeds)
def test_networks_get_the_same_operators(seed):
    v = np.random.default_rng(seed).standard_normal((4, 5))
    t = torch.from_numpy(v)
    thresholds = np.linspace(0.5, 2, 4)
    for of_array, of_tensor in (
        (soft_threshold(v, 0.4), soft_threshold(t, 0.4)),
        (keep_largest(v, 7), keep_largest(t, 7)),
        (trimmed_soft_threshold(v, 0.4, 7), trimmed_soft_threshold(t, 0.4, 7)),
        (block_soft_threshold(v, thresholds), block_soft_threshold(t, torch.from_numpy(thresholds))),
    ):
        assert isinstance(of_tensor, torch.Tensor)
        assert_allclose(of_tensor.numpy(), of_array, rtol=1e-14)
        assert_array_equal(of_tensor.numpy() == 0, of_array == 0)


# solvers


@pytest.mark.parametrize("solver", ["ista", "fista", "working-set"])
@pytest.mark.parametrize("shape", [(30, 12), (12, 30)], ids=["tall", "wide"])
@pytest.mark.parametrize("seed", range(10))
def test_lasso_agrees_with_scikit_learn(seed, shape, solver):
    n, d = shape
    problem = random_problem(seed, n, d)
    strength = 0.1 * problem.strongest_penalty
    theirs = Lasso(alpha=strength, fit_intercept=False, tol=1e-13, max_iter=100_000).fit(problem.X, problem.y)
    ours = minimise(problem, L1(strength), solver=solver, tolerance=1e-10, max_iterations=200_000)
    objective = problem.value(theirs.coef_) + L1(strength).value(theirs.coef_)
    assert ours.converged
    assert ours.objective == pytest.approx(objective, rel=1e-9)
    assert ours.duality_gap <= 1e-10 * ours.objective
    assert ours.duality_gap >= ours.objective - objective - 1e-14  # theirs is no better than the bound allows


@given(seeds, st.sampled_from(["ista", "fista"]))
def test_group_lasso_closes_its_gap_and_zeroes_whole_groups(seed, solver):
    problem = random_problem(seed, 20, 12)
    groups = np.array([0, 1, 2, 0, 1, 2, 3, 3, 3, 3, 2, 0])
    limit = GroupLasso(1.0, groups).dual_norm(problem.gradient(np.zeros(12)))
    penalty = GroupLasso(0.3 * limit, groups)
    found = minimise(problem, penalty, solver=solver, tolerance=1e-8, max_iterations=200_000)
    assert found.converged
    zero = found.weights == 0
    for group in range(4):
        assert zero[groups == group].all() or not zero[groups == group].any()
    everything_zero = minimise(problem, GroupLasso(1.001 * limit, groups), solver=solver, tolerance=1e-8)
    assert everything_zero.support_size == 0


def test_groups_of_one_are_the_lasso():
    problem = random_problem(3, 20, 8)
    for solver in ("ista", "fista"):
        single = minimise(problem, GroupLasso(0.05, np.arange(8)), solver=solver, tolerance=1e-12)
        lasso = minimise(problem, L1(0.05), solver=solver, tolerance=1e-12)
        assert_allclose(single.weights, lasso.weights, atol=1e-10)


@given(seeds, st.floats(0.01, 0.9))
def test_the_gap_bounds_the_distance_to_the_minimum(seed, fraction):
    problem = random_problem(seed)
    penalty = L1(fraction * problem.strongest_penalty)
    best = minimise(problem, penalty, solver="fista", tolerance=1e-12, max_iterations=100_000)
    rng = np.random.default_rng(seed)
    for w in (np.zeros(problem.n_weights), best.weights + 0.1 * rng.standard_normal(problem.n_weights)):
        distance = problem.value(w) + penalty.value(w) - best.objective
        assert judge(problem, penalty, w).duality_gap >= distance - 1e-9 * abs(best.objective)


@given(seeds)
def test_fista_needs_no_more_steps_than_ista(seed):
    problem = random_problem(seed, 15, 30)
    penalty = L1(0.05 * problem.strongest_penalty)
    steps = [
        minimise(problem, penalty, solver=s, tolerance=1e-8, max_iterations=200_000).iterations
        for s in ("fista", "ista")
    ]
    assert steps[0] <= steps[1]


@given(seeds, st.integers(1, 5))
def test_iterative_hard_thresholding_and_trimmed_l1_find_a_planted_support(seed, k):
    rng = np.random.default_rng(seed)
    X = np.linalg.qr(rng.standard_normal((40, 20)))[0]  # orthonormal columns: every local minimum is global
    planted = np.zeros(20)
    planted[rng.choice(20, k, replace=False)] = rng.choice([-1, 1], k) * rng.uniform(1, 2, k)
    problem = LeastSquares(X, X @ planted)
    for penalty in (AtMost(k), TrimmedL1(5.0, k)):
        found = minimise(problem, penalty, solver="ista", tolerance=1e-12)
        assert_array_equal(found.weights != 0, planted != 0)
        assert_allclose(found.weights, planted, atol=1e-9)
        assert found.duality_gap is None
        assert found.residual < 1e-9


def test_without_a_penalty_the_minimum_is_least_squares():
    problem = random_problem(1, 30, 6)
    expected = np.linalg.lstsq(problem.X, problem.y, rcond=None)[0]
    for solver in ("gradient-descent", "ista", "fista"):
        found = minimise(problem, solver=solver, tolerance=1e-14, max_iterations=100_000)
        assert_allclose(found.weights, expected, atol=1e-10)
    assert problem.least == pytest.approx(found.loss)


def test_a_trace_records_every_step_and_counts_only_exact_zeros():
    problem = random_problem(2, 8, 12)
    penalty = L1(0.3 * problem.strongest_penalty)
    run = minimise(problem, penalty, solver="ista", max_iterations=50, trace=True)
    assert run.trace.weights.shape == (51, 12)
    assert_array_equal(run.trace.weights[0], np.zeros(12))
    assert_array_equal(run.trace.weights[-1], run.weights)
    assert run.trace.objective[-1] == run.objective
    assert np.all(np.diff(run.trace.objective) <= 1e-12)  # proximal gradient descends
    assert_array_equal(run.trace.support, run.trace.weights != 0)
    assert (run.trace.support[run.trace.support_since :] == run.trace.support[-1]).all()
    assert (run.trace.support[run.trace.support_since - 1] != run.trace.support[-1]).any()
    assert minimise(problem, penalty, solver="ista", max_iterations=50).trace is None

    swinging = minimise(problem, penalty, solver="subgradient", max_iterations=2000, trace=True)
    assert swinging.support_size == 12  # around zero is not zero
    assert (swinging.trace.sign_changes(last=100) > 10).any()


def test_nothing_is_evaluated_for_a_trace_that_is_not_asked_for(monkeypatch):
    problem, calls = random_problem(4), []
    value = L1.value
    monkeypatch.setattr(L1, "value", lambda self, w: calls.append(1) or value(self, w))
    minimise(problem, L1(0.01), solver="ista", max_iterations=100)
    assert len(calls) == 100 / 10 + 1


@given(st.integers(1, 60), st.integers(1, 60), seeds)
def test_the_lipschitz_constant_is_the_largest_eigenvalue(n, d, seed):
    X = np.random.default_rng(seed).standard_normal((n, d))
    assert largest_eigenvalue(X) == pytest.approx(np.linalg.norm(X, 2) ** 2)


def test_the_lipschitz_constant_of_a_large_matrix_is_bounded_from_above(monkeypatch):
    monkeypatch.setattr("modelpress.toolkit.sparse_regression.objectives._EXACT_EIGENVALUES", 10)
    for seed in range(20):
        X = np.random.default_rng(seed).standard_normal((200, 300))
        exact = np.linalg.norm(X, 2) ** 2
        assert exact <= largest_eigenvalue(X) <= 1.002 * exact


# refusals


def test_a_matrix_of_zeros_is_solved():
    problem = LeastSquares(np.zeros((3, 2)), np.ones(3))
    for solver in ("ista", "fista"):
        found = minimise(problem, L1(0.1), solver=solver, tolerance=1e-9)
        assert found.converged
        assert_array_equal(found.weights, [0, 0])


@pytest.mark.parametrize(
    ("solver", "times"), [("gradient-descent", 2.2), ("ista", 2.2), ("fista", 1.5), ("subgradient", 3)]
)
def test_a_step_size_that_diverges_is_told_with_the_bound(solver, times):
    problem = random_problem(5, 20, 10)
    penalty = NoPenalty() if solver == "gradient-descent" else L1(1e-3)
    bound = (1 if solver == "fista" else 2) / problem.lipschitz
    with pytest.raises(
        InputError, match=rf"{solver} diverges .* L = {problem.lipschitz:.6g}: .* = {bound:.6g}"
    ):
        minimise(problem, penalty, solver=solver, step=times / problem.lipschitz, max_iterations=100_000)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("solver", "times"), [("fista", 1.2), ("ista", 2.05), ("ista", 1.9)])
def test_a_step_size_beyond_its_bound_is_no_error_where_it_converges(seed, solver, times):
    problem = random_problem(seed, 20, 30)
    penalty = L1(0.3 * problem.strongest_penalty)
    start = np.linalg.lstsq(problem.X, problem.y, rcond=None)[0]
    step = times / problem.lipschitz
    found = minimise(
        problem, penalty, solver=solver, start=start, step=step, tolerance=1e-8, max_iterations=100_000
    )
    assert found.converged


def test_few_steps_that_diverge_are_told_too():
    with pytest.raises(InputError, match="diverges with step size 50"):
        minimise(LeastSquares(np.eye(2), np.ones(2)), step=50.0, max_iterations=3)


def test_a_tiny_step_is_not_taken_for_convergence():
    problem = random_problem(1, 30, 6)
    for penalty in (NoPenalty(), AtMost(3)):
        start = keep_largest(np.ones(6), 3)
        found = minimise(
            problem, penalty, solver="ista", start=start, step=1e-12, tolerance=1e-6, max_iterations=100
        )
        assert found.converged is False


def test_a_penalty_without_strength_is_least_squares():
    problem = random_problem(1, 30, 6)
    for penalty in (L1(0.0), GroupLasso(0.0, np.zeros(6, int)), TrimmedL1(0.0, 2)):
        found = minimise(problem, penalty, solver="ista", tolerance=1e-12, max_iterations=100_000)
        assert found.converged
        assert found.duality_gap is None
        assert found.loss == pytest.approx(problem.least)


@pytest.mark.parametrize("scale", [1e-90, 1e-30, 1e30, 1e90])
def test_solutions_scale_with_the_problem(scale):
    problem = random_problem(12, 20, 30)
    penalty = L1(0.1 * problem.strongest_penalty)
    plain = minimise(problem, penalty, solver="fista", tolerance=1e-9)
    scaled = LeastSquares(problem.X, problem.y * scale, weight=problem.weight)
    for solver in ("fista", "working-set"):
        found = minimise(scaled, L1(penalty.strength * scale), solver=solver, tolerance=1e-9)
        assert found.converged
        assert_allclose(found.weights / scale, plain.weights, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 2), (1001, 1001)])
def test_the_lipschitz_constant_of_zeros_is_zero(shape):
    assert LeastSquares(np.zeros(shape), np.ones(shape[0])).lipschitz == 0


def test_a_step_that_overflows_is_told_without_a_warning():
    with pytest.raises(InputError, match="diverges"):  # any warning would be an error
        minimise(random_problem(6), step=1e200)


X, Y = np.ones((3, 2)), np.ones(3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: LeastSquares(X, np.ones(4)),
            r"X has shape \(3, 2\), y has shape \(4,\): expected one y per row",
        ),
        (lambda: LeastSquares(np.ones(3), Y), r"X has shape \(3,\): expected rows and columns"),
        (lambda: LeastSquares(np.ones((0, 2)), np.ones(0)), r"X has shape \(0, 2\)"),
        (lambda: LeastSquares(np.array([[1.0, np.nan]]), np.ones(1)), "X holds nan at row 1, column 2"),
        (lambda: LeastSquares(X, np.array([1, np.inf, 1])), "y holds inf at row 2: expected finite"),
        (lambda: LeastSquares(np.array([["a", "b"]]), np.ones(1)), "X holds values that are no real numbers"),
        (lambda: LeastSquares(X * 1j, Y), "X holds values that are no real numbers"),
        (lambda: LeastSquares([[1.0], [1.0, 2.0]], np.ones(2)), "X is no table of numbers"),
        (lambda: LeastSquares(X * 1e150, Y), r"X has values up to 1.0e\+150, whose squares are out of range"),
        (lambda: LeastSquares(X, Y * 1e-150), "y has values up to 1.0e-150, .*: rescale it"),
        (lambda: minimise(LeastSquares(X, Y), AtMost(1.5)), "k is 1.5"),
        (
            lambda: minimise(LeastSquares(X, Y), start=np.array(["a", "b"])),
            "start holds values that are no real",
        ),
        (lambda: minimise(LeastSquares(X, Y), max_iterations=10.5), "max_iterations is 10.5"),
        (lambda: L1(float("inf")), "lambda is inf: expected a finite number"),
        (lambda: LeastSquares(X, Y, weight=0), "weight is 0: expected a positive"),
        (lambda: L1(-1), "lambda is -1: expected a finite number that is not negative"),
        (lambda: L1(float("nan")), "lambda is nan"),
        (lambda: TrimmedL1(-0.5, 1), "lambda is -0.5"),
        (lambda: GroupLasso(1, np.array([0, 2])), "without gaps"),
        (lambda: GroupLasso(1, np.array([0.0, 1.0])), "whole numbers"),
        (lambda: minimise(LeastSquares(X, Y), AtMost(3)), "k is 3: there are 2 weights, so 0 to 2"),
        (lambda: minimise(LeastSquares(X, Y), TrimmedL1(1, -1)), "k is -1"),
        (lambda: minimise(LeastSquares(X, Y), GroupLasso(1, np.arange(3))), "groups name 3 weights"),
        (lambda: keep_largest(Y, 4), "k is 4"),
        (
            lambda: minimise(LeastSquares(X, Y), solver="adam"),
            "solver is 'adam': expected one of gradient-descent",
        ),
        (lambda: minimise(LeastSquares(X, Y), step=0.0), "step size is 0.0"),
        (lambda: minimise(LeastSquares(X, Y), step=float("nan")), "step size is nan"),
        (lambda: minimise(LeastSquares(X, Y), max_iterations=0), "max_iterations is 0"),
        (lambda: minimise(LeastSquares(X, Y), tolerance=0.0), "tolerance is 0.0"),
        (lambda: minimise(LeastSquares(X, Y), start=np.ones(3)), "start has shape"),
        (lambda: minimise(LeastSquares(X, Y), L1(1), solver="gradient-descent"), "takes no penalty"),
        (lambda: minimise(LeastSquares(X, Y), AtMost(1), solver="subgradient"), "for the L1 penalty"),
        (lambda: minimise(LeastSquares(X, Y), TrimmedL1(1, 1), solver="fista"), "needs a convex penalty"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("solver", sorted(STEPS))
def test_a_stationary_point_stays(solver):
    problem = LeastSquares(np.eye(2), np.array([1.0, -2.0]))
    penalty = L1(0.0) if solver == "subgradient" else NoPenalty()
    found = minimise(problem, penalty, solver=solver, start=problem.y, max_iterations=5)
    assert_array_equal(found.weights, problem.y)
    assert judge(problem, penalty, found.weights, step=0.1).residual == 0


# the working set


@given(seeds, st.floats(0.005, 0.95))
def test_the_working_set_finds_the_minimum_of_the_whole_problem(seed, fraction):
    problem = random_problem(seed)
    penalty = L1(fraction * problem.strongest_penalty)
    found = minimise(problem, penalty, solver="working-set", tolerance=1e-8)
    best = minimise(problem, penalty, solver="fista", tolerance=1e-10, max_iterations=200_000)
    assert found.converged
    assert found.duality_gap <= 1e-8 * found.objective
    assert found.objective <= best.objective * (1 + 2e-8)
    assert judge(problem, penalty, found.weights).objective == pytest.approx(found.objective, rel=1e-12)


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_working_set_grows_over_many_columns(order):
    problem = random_problem(7, 120, 900)
    problem = LeastSquares(np.asarray(problem.X, order=order), problem.y, weight=problem.weight)
    for fraction in (0.3, 0.03, 0.003):  # from a few columns to nearly as many as rows
        penalty = L1(fraction * problem.strongest_penalty)
        found = minimise(problem, penalty, solver="working-set", tolerance=1e-7, max_iterations=100_000)
        assert found.converged
        assert judge(problem, penalty, found.weights).relative_gap <= 1e-7
    assert found.support_size > 80


@given(seeds, st.sampled_from([1e-8, 1e-2, 1, 1e3, 1e8]), st.floats(0.01, 1), st.floats(0.01, 0.9))
def test_the_working_set_starts_anywhere(seed, scale, density, fraction):
    problem = random_problem(seed)
    penalty = L1(fraction * problem.strongest_penalty)
    rng = np.random.default_rng(seed)
    start = np.where(
        rng.random(problem.n_weights) < density, scale * rng.standard_normal(problem.n_weights), 0
    )
    warm = minimise(problem, penalty, solver="working-set", start=start, tolerance=1e-7)
    cold = minimise(problem, penalty, solver="working-set", tolerance=1e-7)
    assert warm.converged
    assert warm.objective == pytest.approx(cold.objective, rel=1e-6)


def test_the_working_set_knows_a_solution():
    problem = random_problem(8, 60, 300)
    penalty = L1(0.05 * problem.strongest_penalty)
    cold = minimise(problem, penalty, solver="working-set", tolerance=1e-9)
    solved = minimise(problem, penalty, solver="working-set", start=cold.weights, tolerance=1e-9)
    assert solved.iterations == 0


def test_a_penalty_that_leaves_no_weight_needs_no_step():
    problem = random_problem(9, 20, 30)
    found = minimise(problem, L1(1.01 * problem.strongest_penalty), solver="working-set", tolerance=1e-6)
    assert (found.iterations, found.support_size, found.converged) == (0, 0, True)


def test_a_solution_that_is_not_sparse_enough_is_refused(monkeypatch):
    monkeypatch.setattr("modelpress.toolkit.sparse_regression.working_set._MOST_COLUMNS", 10)
    problem = random_problem(11, 60, 80)
    with pytest.raises(InputError, match="not sparse enough for it, use fista"):
        minimise(problem, L1(1e-3 * problem.strongest_penalty), solver="working-set", tolerance=1e-6)


def test_a_working_set_stops_at_its_limit_of_iterations():
    problem = random_problem(10, 40, 200)
    for limit in (1, 7, 10):
        found = minimise(
            problem,
            L1(1e-3 * problem.strongest_penalty),
            solver="working-set",
            tolerance=1e-9,
            max_iterations=limit,
        )
        assert found.iterations == limit


def test_too_few_iterations_are_told():
    problem = random_problem(10, 40, 200)
    found = minimise(
        problem,
        L1(1e-3 * problem.strongest_penalty),
        solver="working-set",
        tolerance=1e-12,
        max_iterations=10,
    )
    assert found.converged is False
    assert found.duality_gap > 0


@pytest.mark.parametrize(
    ("penalty", "options", "message"),
    [
        (GroupLasso(1, np.arange(2)), {"tolerance": 1e-6}, "for the L1 penalty with lambda above 0"),
        (L1(0), {"tolerance": 1e-6}, "for the L1 penalty with lambda above 0"),
        (L1(1), {}, "takes a tolerance, no step size"),
        (L1(1), {"tolerance": 1e-6, "step": 0.1}, "takes a tolerance, no step size"),
        (L1(1), {"tolerance": 1e-6, "trace": True}, "records no trace"),
    ],
)
def test_the_working_set_refuses_what_it_cannot_do(penalty, options, message):
    with pytest.raises(InputError, match=message):
        minimise(LeastSquares(X, Y), penalty, solver="working-set", **options)


def test_the_speed_benchmark_runs_small_and_stops_everybody_at_the_same_gap():
    record = measure_lasso_speed(
        [SpeedProblem(60, 200, 6, fraction) for fraction in (0.3, 0.05)],
        tolerance=1e-6,
        rounds=2,
        progress=Silent(),
    )
    assert [row["problem"]["strength_fraction"] for row in record["rows"]] == [0.3, 0.05]
    for row in record["rows"]:
        assert [s["solver"] for s in row["solvers"]] == [*OURS, SCIKIT_LEARN]
        for solver in row["solvers"]:
            assert len(solver["seconds"]) == 2
            assert 0 <= solver["relative_gap"] <= 2e-6
            assert solver["objective"] == pytest.approx(row["solvers"][0]["objective"], rel=4e-6)
