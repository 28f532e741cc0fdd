"""One way to call every solver: `minimise` drives it, stops it, records it when asked to, and notices divergence."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import InputError
from modelpress.toolkit.sparse_regression.objectives import LeastSquares, Vector, real_array
from modelpress.toolkit.sparse_regression.optimality import Judgement, judge
from modelpress.toolkit.sparse_regression.penalties import NoPenalty, Penalty
from modelpress.toolkit.sparse_regression.steps import (
    Iterates,
    Smooth,
    fista,
    gradient_descent,
    ista,
    subgradient,
)
from modelpress.toolkit.sparse_regression.working_set import working_set

_CHECK_EVERY = 10  # iterations between looks at the run; a look costs about one iteration
_FAR_WORSE = 10  # times the objective of the start: a sign of divergence while a run goes on


@dataclass(frozen=True)
class Trace:
    """What happened at every step; row 0 is the start.

    Attributes:
        loss: Shape ``(steps + 1,)``, the squared error without the penalty.
        objective: Shape ``(steps + 1,)``, with it.
        weights: Shape ``(steps + 1, d)``.
    """

    loss: Vector
    objective: Vector
    weights: npt.NDArray[np.float64]

    @property
    def support(self) -> npt.NDArray[np.bool_]:
        """Which weights are not exactly zero; shape ``(steps + 1, d)``."""
        return self.weights != 0

    @property
    def support_since(self) -> int:
        """First step from which on the support is the final one.

        Example:
            >>> weights = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [2.0, 0.0]])
            >>> Trace(np.zeros(4), np.zeros(4), weights).support_since
            2
        """
        differs = (self.support != self.support[-1]).any(axis=1)
        return int(np.flatnonzero(differs)[-1]) + 1 if differs.any() else 0

    def sign_changes(self, last: int) -> npt.NDArray[np.intp]:
        """How often each weight changed its sign in the last so many steps: above 1, it oscillates around zero."""
        signs = np.sign(self.weights[-last - 1 :])
        return np.count_nonzero(signs[1:] * signs[:-1] < 0, axis=0)


@dataclass(frozen=True)
class Solution(Judgement):
    """Where a solver stopped, judged there.

    Attributes:
        weights: Shape ``(d,)``.
        step: Step size used; None for the working set, which takes many.
        iterations: Steps done.
        converged: Whether the tolerance was reached; None where none was given.
        trace: None unless asked for.
    """

    weights: Vector
    step: float | None
    iterations: int
    converged: bool | None
    trace: Trace | None

    @property
    def support_size(self) -> int:
        """Number of weights that are not exactly zero."""
        return int(np.count_nonzero(self.weights))


STEPS: dict[str, Callable[[Smooth, Penalty, Vector, float], Iterates]] = {
    "gradient-descent": gradient_descent,
    "subgradient": subgradient,
    "ista": ista,
    "fista": fista,
}
WORKING_SET = "working-set"
SOLVERS = (*STEPS, WORKING_SET)


def minimise(
    problem: LeastSquares,
    penalty: Penalty | None = None,
    *,
    solver: str = "ista",
    start: Vector | None = None,
    step: float | None = None,
    max_iterations: int = 10_000,
    tolerance: float | None = None,
    trace: bool = False,
) -> Solution:
    """Minimise ``problem.value(w) + penalty.value(w)``.

    Args:
        penalty: None for the plain squared error.
        solver: One of `SOLVERS`. ``fista`` for convex penalties, ``ista`` for the others, ``working-set`` for the
            lasso with many columns and few nonzero weights; the others are for study.
        start: Shape ``(d,)``; zeros by default.
        step: Step size; ``1 / problem.lipschitz`` by default.
        max_iterations: Where to stop in any case.
        tolerance: Stop when the duality gap is at most this times the objective, looked at every 10 iterations;
            where the penalty is no norm, when a step of size 1/L moves no weight by more than this times the largest.
        trace: Record every step. Otherwise nothing is recorded, and nothing evaluated but every 10 iterations.

    Raises:
        InputError: An argument does not fit, or the step size is so large that the iterates diverge.

    Example:
        >>> from modelpress.toolkit.sparse_regression.penalties import L1
        >>> problem = LeastSquares(np.eye(3), np.array([3.0, 0.2, -1.0]), weight=0.5)
        >>> minimise(problem, L1(0.5), solver="fista", tolerance=1e-9).weights
        array([ 2.5,  0. , -0.5])
    """
    penalty = NoPenalty() if penalty is None else penalty
    _check(problem, penalty, solver, max_iterations=max_iterations, tolerance=tolerance)
    w = _start(problem, start)

    if solver == WORKING_SET:
        if step is not None or trace or tolerance is None:
            raise InputError("working-set takes a tolerance, no step size, and records no trace")
        w, n, found = working_set(problem, penalty, w, tolerance=tolerance, max_iterations=max_iterations)
        return _solution(problem, found, w, step=None, iterations=n, tolerance=tolerance, trace=None)

    step = _step(problem, step)
    watch = _Watch(problem, penalty, solver, step, tolerance)
    recorded = [w] if trace else []

    n, done = 0, False
    steps = STEPS[solver](problem, penalty, w, step)
    # a diverging run is told by `_Watch`, with its step size
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        watch.begin(w)
        while n < max_iterations and not done:
            w, n = next(steps), n + 1
            if trace:
                recorded.append(w)
            if n % _CHECK_EVERY == 0 or n == max_iterations:
                done = watch.look(w, n, last=n == max_iterations)

    return _solution(
        problem,
        judge(problem, penalty, w, step=step),
        w,
        step=step,
        iterations=n,
        tolerance=tolerance,
        trace=_trace_of(problem, penalty, recorded) if trace else None,
    )


class _Watch:
    """Looks at a run now and then: does it diverge, is it done?"""

    def __init__(
        self, problem: LeastSquares, penalty: Penalty, solver: str, step: float, tolerance: float | None
    ) -> None:
        self.problem, self.penalty, self.solver = problem, penalty, solver
        self.step, self.tolerance = step, tolerance
        self._bound = problem.value_at_zero  # or that of the start, if it is worse

    def begin(self, w: Vector) -> None:
        """Take note of the start."""
        if w.any():
            found = self.problem.value(w) + self.penalty.value(w)
            self._bound = max(self._bound, found if np.isfinite(found) else self.problem.value(w))

    def look(self, w: Vector, iteration: int, *, last: bool) -> bool:
        """Whether the tolerance is reached.

        Raises:
            InputError: The objective overflows, or is worse than at the start and at zero (while the run goes on:
                ten times as bad) with a step size beyond its bound.
        """
        found = judge(self.problem, self.penalty, w, step=self.step)
        if not found.objective <= self._bound * (1 if last else _FAR_WORSE) * (1 + 1e-9):
            self._check_step(found.objective, iteration)
        if self.tolerance is None:
            return False
        return found.is_within(self.problem, w, gap=self.tolerance, move=self.tolerance)

    def _check_step(self, now: float, iteration: int) -> None:
        lipschitz = self.problem.lipschitz
        factor = 1 if self.solver == "fista" else 2
        if self.step * lipschitz < factor * (1 + 1e-9) and np.isfinite(now):
            return

        raise InputError(
            f"{self.solver} diverges with step size {self.step:g}: the objective is {now:.3g} after step {iteration}, "
            f"{self._bound:.3g} before. The gradient's Lipschitz constant is L = {lipschitz:.6g}: take a step size "
            f"below {factor}/L = {factor / lipschitz:.6g}, or none to use 1/L"
        )


def _solution(
    problem: LeastSquares,
    found: Judgement,
    w: Vector,
    *,
    step: float | None,
    iterations: int,
    tolerance: float | None,
    trace: Trace | None,
) -> Solution:
    return Solution(
        **vars(found),
        weights=w,
        step=step,
        iterations=iterations,
        converged=None if tolerance is None else found.is_within(problem, w, gap=tolerance, move=tolerance),
        trace=trace,
    )


def _check(
    problem: LeastSquares,
    penalty: Penalty,
    solver: str,
    *,
    max_iterations: int,
    tolerance: float | None,
) -> None:
    if solver not in SOLVERS:
        raise InputError(f"solver is {solver!r}: expected one of {', '.join(SOLVERS)}")
    penalty.check(problem.n_weights)
    if not isinstance(max_iterations, int) or max_iterations < 1:
        raise InputError(f"max_iterations is {max_iterations}: expected a whole number of 1 or more")
    if tolerance is not None and not 0 < tolerance < 1:
        raise InputError(f"tolerance is {tolerance}: expected a number between 0 and 1")


def _start(problem: LeastSquares, start: Vector | None) -> Vector:
    w = np.zeros(problem.n_weights) if start is None else real_array("start", start, ndim=1).copy()
    if w.shape != (problem.n_weights,):
        raise InputError(f"start has shape {w.shape}: expected {problem.n_weights} numbers")
    return w


def _step(problem: LeastSquares, step: float | None) -> float:
    if step is None:
        return 1 / problem.lipschitz if problem.lipschitz else 1.0
    if not 0 < step < np.inf:
        raise InputError(f"the step size is {step}: expected a positive number")
    return step


def _trace_of(problem: LeastSquares, penalty: Penalty, recorded: list[Vector]) -> Trace:
    weights = np.stack(recorded)
    loss = np.array([problem.value(w) for w in recorded])
    return Trace(loss, loss + np.array([penalty.value(w) for w in recorded]), weights)
