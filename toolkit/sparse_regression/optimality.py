"""The judge: how far a point is from the optimum, found without any solver."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from modelpress.toolkit.sparse_regression.objectives import LeastSquares, Vector
from modelpress.toolkit.sparse_regression.penalties import Penalty


@dataclass(frozen=True)
class Judgement:
    """What can be said of a point without knowing the solution.

    Attributes:
        loss: Squared error, without the penalty.
        objective: With it.
        duality_gap: Upper bound of ``objective - minimum``; None where the penalty is no norm, or has no strength.
        residual: Largest change that a proximal gradient step makes in a weight, over the step size; 0 at a
            stationary point.
    """

    loss: float
    objective: float
    duality_gap: float | None
    residual: float

    @property
    def relative_gap(self) -> float:
        """Duality gap over the objective; infinite where it is unknown."""
        if self.duality_gap is None:
            return float("inf")
        return self.duality_gap / self.objective if self.objective else 0.0

    def is_within(self, problem: LeastSquares, w: Vector, *, gap: float, move: float) -> bool:
        """Whether the duality gap is at most `gap` times the objective.

        Where no gap is known: whether a step of size 1/L moves no weight by more than `move` times the largest.
        """
        if self.duality_gap is not None:
            return self.duality_gap <= gap * self.objective
        return bool(self.residual <= move * problem.lipschitz * abs(w).max())


@runtime_checkable
class _Norm(Protocol):
    strength: float

    def dual_norm(self, u: Vector) -> float: ...


def judge(problem: LeastSquares, penalty: Penalty, w: Vector, *, step: float = 1.0) -> Judgement:
    """Judge a point by one residual and one gradient.

    Example:
        >>> import numpy as np
        >>> from modelpress.toolkit.sparse_regression.penalties import L1
        >>> problem = LeastSquares(np.eye(2), np.array([3.0, 0.5]), weight=0.5)
        >>> judge(problem, L1(1.0), np.array([2.0, 0.0]))  # the minimiser
        Judgement(loss=0.625, objective=2.625, duality_gap=0.0, residual=0.0)
    """
    return judge_products(problem, penalty, w, -problem.residual(w), step=step)[0]


def judge_products(
    problem: LeastSquares, penalty: Penalty, w: Vector, r: Vector, *, step: float = 1.0
) -> tuple[Judgement, Vector]:
    """`judge` where the residual ``r = y - X w`` is known; also returns the gradient, which needs all of X."""
    r_r, added = float(r @ r), penalty.value(w)
    gradient = (-2 * problem.weight) * (problem.X.T @ r)
    gap = None
    if isinstance(penalty, _Norm) and penalty.strength:
        r_y, limit = float(r @ problem.y), penalty.dual_norm(gradient)
        gap = duality_gap(problem.weight, penalty=added, r_y=r_y, r_r=r_r, dual_norm=limit)

    loss = problem.weight * r_r
    moved = penalty.prox(w - step * gradient, step)
    return Judgement(loss, loss + added, gap, float(abs(moved - w).max() / step)), gradient


def duality_gap(weight: float, *, penalty: float, r_y: float, r_r: float, dual_norm: float) -> float:
    """Upper bound of ``objective(w) - minimum``, by a dual feasible point made from the residual ``r = y - X w``.

    The dual of ``min_w c ||X w - y||^2 + penalty(w)`` is ``max_u u.y - ||u||^2 / (4 c)`` over all u with
    ``dual_norm(X^T u) <= 1``. Of the multiples of ``2 c r``, the best feasible one is taken.

    Args:
        weight: c.
        penalty: The penalty's value at w.
        r_y: ``r.y``.
        r_r: ``r.r``.
        dual_norm: Of ``2 c X^T r``.

    Source: Kim et al. 2007, "An interior-point method for large-scale l1-regularized least squares", section III;
    Ndiaye et al. 2017, "Gap Safe Screening Rules", arXiv:1611.05780, section 3.
    """
    best = r_y / r_r if r_r else 0.0
    multiple = min(max(best, -1 / dual_norm), 1 / dual_norm) if dual_norm else best
    dual = weight * multiple * (2 * r_y - multiple * r_r)
    return max(weight * r_r + penalty - dual, 0.0)
