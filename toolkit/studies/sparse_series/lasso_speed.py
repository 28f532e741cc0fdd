"""How fast our lasso solvers are beside scikit-learn's coordinate descent, to the same duality gap."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from modelpress.benchmarks.environment import describe_environment
from modelpress.export.errors import InputError
from modelpress.export.extras import how_to_install
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.sparse_regression.objectives import LeastSquares, Vector
from modelpress.toolkit.sparse_regression.optimality import judge
from modelpress.toolkit.sparse_regression.penalties import L1
from modelpress.toolkit.sparse_regression.solvers import minimise

SCIKIT_LEARN = "scikit-learn, coordinate descent"
OURS = {"FISTA on a working set": "working-set", "FISTA, restarted": "fista"}
_MOST_ITERATIONS = 100_000
_PAUSE = 0.3  # seconds before a solver starts: idle threads of the one before keep a core busy for a while


@dataclass(frozen=True)
class SpeedProblem:
    """A random problem: Gaussian X, few nonzero weights, noise of a fifth of the signal's power.

    Attributes:
        strength_fraction: Lambda, relative to the one from which on every weight is zero.
    """

    samples: int
    features: int
    nonzero: int
    strength_fraction: float
    seed: int = 0

    def draw(self) -> tuple[LeastSquares, float]:
        """The problem in scikit-learn's scale, columns contiguous, and lambda."""
        rng = np.random.default_rng(self.seed)
        X = np.asfortranarray(rng.standard_normal((self.samples, self.features)))
        w = np.zeros(self.features)
        w[rng.choice(self.features, self.nonzero, replace=False)] = rng.standard_normal(self.nonzero)
        signal = X @ w
        noise = rng.standard_normal(self.samples) * np.sqrt(np.mean(signal**2) / 5)
        problem = LeastSquares(X, signal + noise, weight=1 / (2 * self.samples))

        return problem, self.strength_fraction * problem.strongest_penalty


def measure_lasso_speed(
    problems: Sequence[SpeedProblem], *, tolerance: float, rounds: int, progress: Progress
) -> dict[str, Any]:
    """Time every solver from raw arrays to weights, in turns; returns a record for JSON.

    Args:
        tolerance: Duality gap that is small enough to stop, relative to the objective. Scikit-learn's own scale
            differs; its tolerance is set to the same gap by the objective that ours found.
        rounds: How often the solvers take turns.

    Raises:
        InputError: scikit-learn is not installed.
    """
    progress.start("lasso", len(problems) * rounds * (len(OURS) + 1))
    try:
        rows = [_measure(p, tolerance=tolerance, rounds=rounds, progress=progress) for p in problems]
    finally:
        progress.finish()

    return {
        "schema_version": 1,
        "kind": "lasso-speed",
        "environment": describe_environment(),
        "tolerance": tolerance,
        "rounds": rounds,
        "rows": rows,
    }


def _measure(made: SpeedProblem, *, tolerance: float, rounds: int, progress: Progress) -> dict[str, Any]:
    problem, strength = made.draw()
    penalty = L1(strength)
    reference = minimise(problem, penalty, solver="working-set", tolerance=tolerance)
    # theirs stops at gap <= tol * ||y||^2 / n
    their_tolerance = tolerance * reference.objective * len(problem.y) / float(problem.y @ problem.y)
    runs: dict[str, Callable[[], Vector]] = {
        **{name: _ours(problem, strength, solver, tolerance) for name, solver in OURS.items()},
        SCIKIT_LEARN: _theirs(problem, strength, their_tolerance),
    }

    seconds: dict[str, list[float]] = {name: [] for name in runs}
    found: dict[str, Vector] = {}
    for turn in range(rounds):
        names = list(runs)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            time.sleep(_PAUSE)
            began = time.perf_counter()
            found[name] = runs[name]()
            seconds[name].append(time.perf_counter() - began)
            progress.advance(f"lambda {made.strength_fraction:g}, {name}: {seconds[name][-1]:.2f} s")

    theirs = float(np.median(seconds[SCIKIT_LEARN]))
    return {
        "problem": asdict(made),
        "lambda": strength,
        "solvers": [
            {
                "solver": name,
                "seconds": seconds[name],
                "median_seconds": float(np.median(seconds[name])),
                "times_as_fast_as_scikit_learn": theirs / float(np.median(seconds[name])),
                **_quality(problem, penalty, found[name]),
            }
            for name in runs
        ],
    }


def _quality(problem: LeastSquares, penalty: L1, w: Vector) -> dict[str, Any]:
    """By the judge, not by the solver."""
    verdict = judge(problem, penalty, w)
    return {
        "objective": verdict.objective,
        "relative_gap": verdict.relative_gap,
        "nonzero": int(np.count_nonzero(w)),
    }


def _ours(problem: LeastSquares, strength: float, solver: str, tolerance: float) -> Callable[[], Vector]:
    def run() -> Vector:
        fresh = LeastSquares(
            problem.X, problem.y, weight=problem.weight
        )  # checks its input, knows no Lipschitz constant
        found = minimise(
            fresh, L1(strength), solver=solver, tolerance=tolerance, max_iterations=_MOST_ITERATIONS
        )
        return found.weights

    return run


def _theirs(problem: LeastSquares, strength: float, tolerance: float) -> Callable[[], Vector]:
    try:
        from sklearn.linear_model import Lasso
    except ImportError as error:
        raise InputError(f"this benchmark needs scikit-learn: {how_to_install('train')}") from error

    def run() -> Vector:
        lasso = Lasso(
            alpha=strength, fit_intercept=False, copy_X=False, tol=tolerance, max_iter=_MOST_ITERATIONS
        )
        weights: Vector = lasso.fit(problem.X, problem.y).coef_
        return weights

    return run
