"""First-order solvers: one way to call them all.

Every solver is a generator of iterates, a transcription of its paper's update; `minimise` drives it, stops it, records
it when asked to, and notices when it diverges.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export.errors import InputError
from toolkit.sparse_regression.objectives import LeastSquares, Vector
from toolkit.sparse_regression.optimality import duality_gap, fixed_point_residual, has_dual
from toolkit.sparse_regression.penalties import L1, NoPenalty, Penalty

Iterates = Iterator[Vector]
_CHECK_EVERY = 10  # iterations between looks at the objective; a look costs about one iteration


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
class Solution:
    """Where a solver stopped.

    Attributes:
        weights: Shape ``(d,)``.
        step: Step size used.
        iterations: Steps done.
        loss: Squared error, without the penalty.
        objective: With it.
        duality_gap: Upper bound of ``objective - minimum``; None where the penalty is no norm.
        residual: `fixed_point_residual` at the weights.
        converged: Whether the tolerance was reached; None where none was given.
        trace: None unless asked for.
    """

    weights: Vector
    step: float
    iterations: int
    loss: float
    objective: float
    duality_gap: float | None
    residual: float
    converged: bool | None
    trace: Trace | None

    @property
    def support_size(self) -> int:
        """Number of weights that are not exactly zero."""
        return int(np.count_nonzero(self.weights))


def gradient_descent(problem: LeastSquares, penalty: Penalty, w: Vector, step: float) -> Iterates:
    """``w <- w - step * gradient(w)`` (Cauchy 1847); the penalty has to be none."""
    if not isinstance(penalty, NoPenalty):
        raise InputError("gradient-descent takes no penalty; use subgradient, ista or fista")
    while True:
        w = w - step * problem.gradient(w)
        yield w


def subgradient(problem: LeastSquares, penalty: Penalty, w: Vector, step: float) -> Iterates:
    """``w <- w - step * (gradient(w) + lambda * sign(w))``, constant step (Shor 1985).

    It does not settle: weights that should be zero oscillate around it at the scale ``step * lambda``.
    """
    if not isinstance(penalty, L1):
        raise InputError("subgradient is for the L1 penalty; use ista or fista")
    while True:
        w = w - step * (problem.gradient(w) + penalty.subgradient(w))
        yield w


def ista(problem: LeastSquares, penalty: Penalty, w: Vector, step: float) -> Iterates:
    """Proximal gradient: ``w <- prox(w - step * gradient(w))``.

    With `AtMost` this is iterative hard thresholding. Source: Beck and Teboulle 2009, "A Fast Iterative
    Shrinkage-Thresholding Algorithm", eq. (1.4).
    """
    while True:
        w = penalty.prox(w - step * problem.gradient(w), step)
        yield w


def fista(problem: LeastSquares, penalty: Penalty, w: Vector, step: float) -> Iterates:
    """Accelerated proximal gradient, restarted whenever the momentum points uphill.

    Source: Beck and Teboulle 2009, eq. (4.1)-(4.3); restart: O'Donoghue and Candès 2015, "Adaptive Restart for
    Accelerated Gradient Schemes", arXiv:1204.3982, section 3.2, gradient scheme.
    """
    if not penalty.convex:
        raise InputError(f"fista needs a convex penalty, {type(penalty).__name__} is not: use ista")
    ahead, t = w, 1.0
    while True:
        new = penalty.prox(ahead - step * problem.gradient(ahead), step)
        if (ahead - new) @ (new - w) > 0:
            ahead, t = new, 1.0
        else:
            t_new = (1 + (1 + 4 * t * t) ** 0.5) / 2
            ahead, t = new + (t - 1) / t_new * (new - w), t_new
        w = new
        yield w


SOLVERS: dict[str, Callable[[LeastSquares, Penalty, Vector, float], Iterates]] = {
    "gradient-descent": gradient_descent,
    "subgradient": subgradient,
    "ista": ista,
    "fista": fista,
}


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
        solver: A key of `SOLVERS`.
        start: Shape ``(d,)``; zeros by default.
        step: Step size; ``1 / problem.lipschitz`` by default.
        max_iterations: Where to stop in any case.
        tolerance: Stop when the duality gap is at most this times the objective, looked at every 10 iterations;
            where the penalty is no norm, when a proximal step moves no weight by more than this times the largest.
        trace: Record every step. Otherwise nothing is recorded and no objective evaluated but at the looks.

    Raises:
        InputError: An argument does not fit, or the step size is so large that the iterates diverge.

    Example:
        >>> problem = LeastSquares(np.eye(3), np.array([3.0, 0.2, -1.0]), weight=0.5)
        >>> minimise(problem, L1(0.5), solver="fista", tolerance=1e-9).weights
        array([ 2.5,  0. , -0.5])
    """
    penalty = NoPenalty() if penalty is None else penalty
    w, step = _checked(
        problem,
        penalty,
        solver=solver,
        start=start,
        step=step,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
    watch = _Watch(problem, penalty, solver, step, tolerance)
    recorded = [w] if trace else []
    iterations, converged = 0, None if tolerance is None else False
    steps = SOLVERS[solver](problem, penalty, w, step)
    with np.errstate(over="ignore", invalid="ignore"):  # a diverging run is told below, with its step size
        watch.look(w, 0)
        while iterations < max_iterations and not converged:
            w, iterations = next(steps), iterations + 1
            if trace:
                recorded.append(w)
            if iterations % _CHECK_EVERY == 0 or iterations == max_iterations:
                watch.look(w, iterations)
                converged = watch.within_tolerance(w)
    loss = problem.value(w)
    return Solution(
        weights=w,
        step=step,
        iterations=iterations,
        loss=loss,
        objective=loss + penalty.value(w),
        duality_gap=duality_gap(problem, penalty, w) if has_dual(penalty) else None,
        residual=fixed_point_residual(problem, penalty, w, step),
        converged=converged,
        trace=_trace_of(problem, penalty, recorded) if trace else None,
    )


@dataclass
class _Watch:
    """Looks at a run now and then: does it diverge, is it done?"""

    problem: LeastSquares
    penalty: Penalty
    solver: str
    step: float
    tolerance: float | None
    first: float = 0.0
    last: float = np.inf

    def look(self, w: Vector, iteration: int) -> None:
        """Raise InputError where the objective rises and the step size is beyond its bound."""
        now = self.problem.value(w)
        if iteration == 0:
            self.first = now
        elif not now <= self.last:
            self._check_step(now, iteration)
        self.last = now

    def _check_step(self, now: float, iteration: int) -> None:
        lipschitz = self.problem.lipschitz
        factor = 1 if self.solver == "fista" else 2
        if self.step * lipschitz < factor * (1 + 1e-9) and np.isfinite(now):
            return  # momentum and subgradients may rise now and then
        raise InputError(
            f"{self.solver} diverges with step size {self.step:g}: the squared error went from {self.first:.3g} to "
            f"{now:.3g} by step {iteration}. The gradient's Lipschitz constant is L = {lipschitz:.6g}: take a step "
            f"size below {factor}/L = {factor / lipschitz:.6g}, or none to use 1/L"
        )

    def within_tolerance(self, w: Vector) -> bool | None:
        if self.tolerance is None:
            return None
        if has_dual(self.penalty):
            objective = self.problem.value(w) + self.penalty.value(w)
            return duality_gap(self.problem, self.penalty, w) <= self.tolerance * objective
        moved = self.step * fixed_point_residual(self.problem, self.penalty, w, self.step)
        return bool(moved <= self.tolerance * np.abs(w).max())


def _checked(
    problem: LeastSquares,
    penalty: Penalty,
    *,
    solver: str,
    start: Vector | None,
    step: float | None,
    max_iterations: int,
    tolerance: float | None,
) -> tuple[Vector, float]:
    """The start and the step size to use."""
    if solver not in SOLVERS:
        raise InputError(f"solver is {solver!r}: expected one of {', '.join(SOLVERS)}")
    penalty.check(problem.n_weights)
    w = np.zeros(problem.n_weights) if start is None else np.array(start, dtype=np.float64)
    if w.shape != (problem.n_weights,) or not np.isfinite(w).all():
        raise InputError(f"start has shape {w.shape}: expected {problem.n_weights} finite numbers")
    if step is None:
        step = 1 / problem.lipschitz if problem.lipschitz else 1.0
    if not 0 < step < np.inf:
        raise InputError(f"the step size is {step}: expected a positive number")
    if max_iterations < 1:
        raise InputError(f"max_iterations is {max_iterations}: expected 1 or more")
    if tolerance is not None and not 0 < tolerance < 1:
        raise InputError(f"tolerance is {tolerance}: expected a number between 0 and 1")
    return w, step


def _trace_of(problem: LeastSquares, penalty: Penalty, recorded: list[Vector]) -> Trace:
    weights = np.stack(recorded)
    loss = np.array([problem.value(w) for w in recorded])
    return Trace(loss, loss + np.array([penalty.value(w) for w in recorded]), weights)
