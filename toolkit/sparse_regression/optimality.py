"""The judges: how far a point is from the optimum, found without any solver."""

from typing import Protocol, runtime_checkable

from toolkit.sparse_regression.objectives import LeastSquares, Vector
from toolkit.sparse_regression.penalties import Penalty


@runtime_checkable
class _Norm(Protocol):
    def value(self, w: Vector) -> float: ...

    def dual_norm(self, u: Vector) -> float: ...


def has_dual(penalty: Penalty) -> bool:
    """Whether `duality_gap` is known for the penalty: it is a norm."""
    return isinstance(penalty, _Norm)


def duality_gap(problem: LeastSquares, penalty: Penalty, w: Vector) -> float:
    """Upper bound of ``objective(w) - minimum``, by a dual feasible point made from the residual of w.

    The dual of ``min_w c ||X w - y||^2 + penalty(w)`` is ``max_u u.y - ||u||^2 / (4 c)`` over all u with
    ``dual_norm(X^T u) <= 1``. Of the multiples of ``2 c (y - X w)``, the best feasible one is taken.

    Source: Kim et al. 2007, "An interior-point method for large-scale l1-regularized least squares", section III;
    Ndiaye et al. 2017, "Gap Safe Screening Rules", arXiv:1611.05780, section 3.

    Example:
        >>> import numpy as np
        >>> from toolkit.sparse_regression.penalties import L1
        >>> problem = LeastSquares(np.eye(2), np.array([3.0, 0.5]), weight=0.5)
        >>> duality_gap(problem, L1(1.0), np.array([2.0, 0.0]))  # the minimiser
        0.0
    """
    assert isinstance(penalty, _Norm)  # has_dual
    c, residual = problem.weight, -problem.residual(w)
    limit = penalty.dual_norm(2 * c * (problem.X.T @ residual))  # of the multiple 1
    return gap_from_products(
        c,
        penalty.value(w),
        float(residual @ problem.y),
        float(residual @ residual),
        limit,
    )


def gap_from_products(c: float, penalty: float, r_y: float, r_r: float, dual_norm: float) -> float:
    """`duality_gap` from inner products of the residual ``r = y - X w``.

    Args:
        c: Weight of the squared error.
        penalty: The penalty's value at w.
        r_y: ``r.y``.
        r_r: ``r.r``.
        dual_norm: Of ``2 c X^T r``.
    """
    best = r_y / r_r if r_r else 0.0
    multiple = min(max(best, -1 / dual_norm), 1 / dual_norm) if dual_norm else best
    dual = 2 * c * multiple * r_y - c * multiple**2 * r_r
    return max(c * r_r + penalty - dual, 0.0)


def fixed_point_residual(problem: LeastSquares, penalty: Penalty, w: Vector, step: float) -> float:
    """Largest change that a proximal gradient step makes in a weight, over the step size; 0 at a stationary point."""
    moved = penalty.prox(w - step * problem.gradient(w), step)
    return float(abs(moved - w).max() / step)
