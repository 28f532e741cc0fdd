"""The lasso with many more columns than nonzero weights: FISTA on a small set of columns that grows as needed.

The penalty starts where a few weights enter and falls to its asked-for strength. At every strength FISTA (restarted)
solves for the columns of the working set alone, on their Gram matrix, so that an iteration does not touch X. Then one
product with all of X tells which columns to add, and how large the duality gap of the whole problem is.

Source: working sets by violation, Massias et al. 2018, "Celer", arXiv:1802.07481; warm starts along the penalty,
Friedman et al. 2010, "Regularization Paths for Generalized Linear Models via Coordinate Descent", section 2.5.
"""

from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import InputError
from modelpress.toolkit.sparse_regression.objectives import LeastSquares, Vector, top_eigenvalue
from modelpress.toolkit.sparse_regression.optimality import Judgement, duality_gap, judge_products
from modelpress.toolkit.sparse_regression.penalties import L1, Penalty
from modelpress.toolkit.sparse_regression.steps import fista

_FIRST_COLUMNS = 100  # the working set's first size, and its least growth
_GROWTH = 0.7  # at most so many columns are added, relative to the nonzero weights
_NEXT_STRENGTH = 0.5  # of the strength before, unless that would admit too many columns
_ON_THE_WAY = 0.1  # relative gap that is good enough where the penalty will fall further
_AT_THE_END = 0.03  # part of the present gap that FISTA leaves at the asked-for strength
_LOOK_EVERY = 5  # iterations
_CURVATURE = 5e-2  # relative error of the largest eigenvalue, for the step size
_MOST_INNER = 5000  # iterations between two looks at all columns
_MOST_COLUMNS = 20_000  # their Gram matrix has 3.2 GB
_DENSE = 0.75  # a working set with that share of all columns seen takes their Gram matrix as it is

Columns = npt.NDArray[np.intp]


@dataclass(frozen=True)
class _Quadratic:
    """Least squares in terms of products only: ``weight * (w.G w - 2 b.w + y.y)``."""

    gram: npt.NDArray[np.float64]
    b: Vector
    y_y: float
    weight: float

    def gradient(self, w: Vector) -> Vector:
        return (2 * self.weight) * (self.gram @ w - self.b)

    def relative_gap(self, penalty: L1, w: Vector) -> float:
        """Duality gap of the problem that has these columns only, over its objective."""
        gradient, added, b_w = self.gradient(w), penalty.value(w), float(self.b @ w)
        r_y = self.y_y - b_w
        r_r = max(r_y + float(w @ gradient) / (2 * self.weight), 0.0)
        limit = penalty.dual_norm(gradient)
        gap = duality_gap(self.weight, penalty=added, r_y=r_y, r_r=r_r, dual_norm=limit)
        return gap / (self.weight * r_r + added or 1.0)


def working_set(
    problem: LeastSquares, penalty: Penalty, w: Vector, *, tolerance: float, max_iterations: int
) -> tuple[Vector, int, Judgement]:
    """Weights whose duality gap is at most `tolerance` times the objective, the iterations that took, the judgement.

    Raises:
        InputError: The penalty is not L1, or is zero (then every column is in the working set), or too many columns
            have to be.
    """
    if not isinstance(penalty, L1) or not penalty.strength:
        raise InputError("working-set is for the L1 penalty with lambda above 0; use ista or fista")
    search = _Search(problem, penalty, w)
    while search.found.relative_gap > tolerance and search.iterations < max_iterations:
        search.solve(search.admit(), tolerance, max_iterations)
    return search.w, search.iterations, search.found


def _is_of_use(problem: LeastSquares, penalty: L1, w: Vector) -> bool:
    """Whether a start is better than zeros, and no denser than a solution needs to be."""
    if not 0 < np.count_nonzero(w) <= len(problem.X):
        return False
    return problem.value(w) + penalty.value(w) < problem.value_at_zero


class _Search:
    """Where the search stands: weights, all correlations, and the Gram matrix of the columns seen so far."""

    def __init__(self, problem: LeastSquares, penalty: L1, w: Vector) -> None:
        self.problem, self.penalty = problem, penalty
        self.w = w if _is_of_use(problem, penalty, w) else np.zeros_like(w)
        self.iterations = 0
        self._seen = _SeenColumns(problem)
        self._y_y = float(problem.y @ problem.y)
        warm = bool(self.w.any())  # then the way along the penalty is behind
        self._look(-problem.residual(self.w) if warm else problem.y)
        self._strength = penalty.strength if warm else max(float(self._correlation.max()), penalty.strength)

    def _look(self, r: Vector) -> None:
        """Judge the weights by their residual ``y - X w``: the correlations of all columns with it, and the gap."""
        self.found, gradient = judge_products(self.problem, self.penalty, self.w, r)
        self._correlation = np.abs(gradient)

    def admit(self) -> Columns:
        """Lower the strength as far as few enough columns enter; nonzero columns and those that violate it most."""
        nonzero = np.flatnonzero(self.w)
        violation = self._correlation.copy()
        violation[nonzero] = 0
        room = min(max(_FIRST_COLUMNS, int(_GROWTH * len(nonzero))), len(violation))

        # the strength falls step by step: a solution for a stronger penalty is a good start, and sparse
        border = float(np.partition(violation, -room)[-room])
        if self._strength > self.penalty.strength:
            lower = border if not self._seen.count else max(border, self._strength / 4)
            self._strength = max(self.penalty.strength, min(self._strength * _NEXT_STRENGTH, lower))

        entering = np.flatnonzero(violation > self._strength)
        if len(entering) > room:
            entering = entering[np.argpartition(-violation[entering], room - 1)[:room]]

        return np.concatenate([nonzero, entering])

    def solve(self, columns: Columns, tolerance: float, max_iterations: int) -> None:
        """FISTA on the working set at the present strength, then a look at all columns."""
        gram, columns = self._seen.gram(columns)
        part = _Quadratic(gram, self._seen.b(columns), self._y_y, self.problem.weight)
        penalty, enough = L1(self._strength), _ON_THE_WAY
        if self._strength == self.penalty.strength:
            enough = max(0.3 * tolerance, _AT_THE_END * self.found.relative_gap)

        x = self.w[columns]
        curvature = top_eigenvalue(lambda v: gram @ v, len(gram), tolerance=_CURVATURE)
        step = 1 / (2 * self.problem.weight * curvature or 1.0)

        steps = fista(part, penalty, x, step)
        left = min(_MOST_INNER, max_iterations - self.iterations)
        while left:
            *_, x = islice(steps, min(_LOOK_EVERY, left))
            self.iterations += min(_LOOK_EVERY, left)
            left -= min(_LOOK_EVERY, left)
            if part.relative_gap(penalty, x) <= enough:
                break

        self.w = np.zeros_like(self.w)
        self.w[columns] = x
        self._look(self._seen.residual(self.w))


class _SeenColumns:
    """Copies of all columns that were ever in the working set, side by side, and their Gram matrix."""

    def __init__(self, problem: LeastSquares) -> None:
        self._problem = problem
        self.count = 0
        self._columns: Columns = np.zeros(0, np.intp)
        self._place = np.full(problem.n_weights, -1)
        self._copies = np.zeros((len(problem.X), 0), order="F")
        self._gram = np.zeros((0, 0))
        self._b = np.zeros(0)

    def gram(self, columns: Columns) -> tuple[npt.NDArray[np.float64], Columns]:
        """Gram matrix of some columns, and these columns in its order; more of them where that is cheaper."""
        self._add(columns[self._place[columns] < 0])
        if len(columns) > _DENSE * self.count:
            return self._gram[: self.count, : self.count], self._columns
        places = np.sort(self._place[columns])
        return self._gram.take(places, axis=0).take(places, axis=1), self._columns[places]

    def b(self, columns: Columns) -> Vector:
        """``X^T y`` of some columns."""
        return self._b[self._place[columns]]

    def residual(self, w: Vector) -> Vector:
        """``y - X w`` for weights that are zero in all other columns."""
        return self._problem.y - self._copies[:, : self.count] @ w[self._columns]

    def _add(self, new: Columns) -> None:
        old, total = self.count, self.count + len(new)
        if total > _MOST_COLUMNS:
            raise InputError(
                f"working-set would need the products of {total:,} columns (at most {_MOST_COLUMNS:,}): "
                "the solution is not sparse enough for it, use fista"
            )

        if total > len(self._gram):
            self._reserve(max(total, min(2 * old, _MOST_COLUMNS)))

        # only products with the new columns are computed; the others are kept
        fresh = self._copies[:, old:total]
        np.take(self._problem.X.T, new, axis=0, out=fresh.T, mode="clip")  # clip: without a buffer
        self._gram[old:total, :old] = fresh.T @ self._copies[:, :old]
        self._gram[:old, old:total] = self._gram[old:total, :old].T
        self._gram[old:total, old:total] = fresh.T @ fresh

        self._b = np.concatenate([self._b, fresh.T @ self._problem.y])
        self._columns = np.concatenate([self._columns, new])
        self._place[new] = np.arange(old, total)
        self.count = total

    def _reserve(self, capacity: int) -> None:
        old = self.count
        copies, gram = np.empty((len(self._copies), capacity), order="F"), np.empty((capacity, capacity))
        copies[:, :old], gram[:old, :old] = self._copies[:, :old], self._gram[:old, :old]
        self._copies, self._gram = copies, gram
