"""What is minimised: a squared error and, added to it, a penalty."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import LinearOperator, eigsh

from modelpress.export.errors import InputError
from modelpress.toolkit.sparse_regression.prox import largest

Vector = npt.NDArray[np.float64]
_SMALLEST_POWER, _LARGEST_POWER = 1e-200, 1e200  # of sums of squares
_EXACT_EIGENVALUES = 1000  # up to this many rows or columns; beyond, a few Lanczos steps
_LANCZOS_NEEDS, _LANCZOS_VECTORS = 20, 6  # columns at least; basis


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """The problem ``min_w weight * ||X w - y||^2``.

    Args:
        X: Shape ``(n, d)``, one observation per row.
        y: Shape ``(n,)``.
        weight: 1 as in the plain sum of squares; ``1 / (2 n)`` as in scikit-learn's ``Lasso``.

    Raises:
        InputError: Shapes do not fit, a value is not a finite number, or the weight is not positive.

    Example:
        >>> problem = LeastSquares(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([1.0, 2.0]))
        >>> problem.value(np.array([1.0, 0.0])), problem.gradient(np.array([1.0, 0.0]))
        (4.0, array([ 0., -8.]))
        >>> problem.lipschitz
        8.0
    """

    X: npt.NDArray[np.float64]
    y: Vector
    weight: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "X", real_array("X", self.X, ndim=2))
        object.__setattr__(self, "y", real_array("y", self.y, ndim=1))
        if len(self.y) != len(self.X):
            raise InputError(
                f"X has shape {self.X.shape}, y has shape {self.y.shape}: expected one y per row of X"
            )
        if not 0 < self.weight < np.inf:
            raise InputError(f"the squared error's weight is {self.weight}: expected a positive number")

    @property
    def n_weights(self) -> int:
        """Number of columns of X."""
        return self.X.shape[1]

    def residual(self, w: Vector) -> Vector:
        """``X w - y``; shape ``(n,)``."""
        return self.X @ w - self.y

    def value(self, w: Vector) -> float:
        """``weight * ||X w - y||^2``."""
        residual = self.residual(w)
        return float(self.weight * (residual @ residual))

    def gradient(self, w: Vector) -> Vector:
        """``2 weight X^T (X w - y)``; shape ``(d,)``."""
        return (2 * self.weight) * (self.X.T @ self.residual(w))

    @cached_property
    def lipschitz(self) -> float:
        """Lipschitz constant of the gradient: ``2 weight`` times the largest eigenvalue of ``X^T X``."""
        return 2 * self.weight * largest_eigenvalue(self.X)

    @cached_property
    def value_at_zero(self) -> float:
        """``weight * ||y||^2``, what no weights at all reach."""
        return float(self.weight * (self.y @ self.y))

    @cached_property
    def strongest_penalty(self) -> float:
        """The lambda from which on every weight of the lasso is zero: ``max |2 weight X^T y|``."""
        return float(np.abs(2 * self.weight * (self.X.T @ self.y)).max())

    @cached_property
    def least(self) -> float:
        """The smallest value that any w reaches, from the least-squares solution."""
        solution: Vector = np.linalg.lstsq(self.X, self.y, rcond=None)[0].astype(np.float64)
        return self.value(solution)


def largest_eigenvalue(X: npt.NDArray[np.float64]) -> float:  # noqa: N803 - the field's name
    """Largest eigenvalue of ``X^T X``; exact for small matrices, else at most 0.2 % above it."""
    if min(X.shape) <= _EXACT_EIGENVALUES:
        gram = X @ X.T if len(X) < X.shape[1] else X.T @ X
        return max(float(np.linalg.eigvalsh(gram)[-1]), 0.0)
    return top_eigenvalue(lambda v: X.T @ (X @ v), X.shape[1], tolerance=1e-3)


def top_eigenvalue(product: Callable[[Vector], Vector], size: int, *, tolerance: float) -> float:
    """Largest eigenvalue of a symmetric matrix without negative ones, and up to twice the tolerance more (Lanczos).

    Args:
        product: Multiplies the matrix with a vector.
    """
    if not size:
        return 0.0
    if size < _LANCZOS_NEEDS:
        matrix = np.stack([product(row) for row in np.eye(size)])
        return max(float(np.linalg.eigvalsh(matrix)[-1]), 0.0)

    matrix = LinearOperator((size, size), matvec=lambda v: product(v.ravel()), dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(size)
    if not product(start).any():
        return 0.0

    value = eigsh(matrix, k=1, ncv=_LANCZOS_VECTORS, tol=tolerance, v0=start, return_eigenvectors=False)[0]
    return float(value) * (1 + tolerance)


def l1_norm(w: Vector) -> float:
    """``sum_i |w_i|``.

    Example:
        >>> l1_norm(np.array([3.0, -4.0]))
        7.0
    """
    return float(np.abs(w).sum())


def trimmed_l1_norm(w: Vector, k: int) -> float:
    """``sum of |w_i|`` over all but the k largest; zero exactly when at most k entries are not zero.

    Source: Yun et al. 2019, arXiv:1805.07495.

    Example:
        >>> trimmed_l1_norm(np.array([3.0, -4.0, 0.5]), 2)
        0.5
    """
    return float(np.abs(w[~largest(w, k)]).sum())


def group_norm(w: Vector, groups: npt.NDArray[np.intp], factors: Vector) -> float:
    """``sum_g factors_g * ||w_g||_2``, where `groups` names the group of every weight.

    Example:
        >>> group_norm(np.array([3.0, 0.0, 4.0]), np.array([0, 1, 0]), np.array([2.0, 2.0]))
        10.0
    """
    return float(factors @ group_lengths(w, groups))


def group_lengths(w: Vector, groups: npt.NDArray[np.intp]) -> Vector:
    """``||w_g||_2`` of every group; shape ``(groups,)``.

    Example:
        >>> group_lengths(np.array([3.0, 1.0, 4.0]), np.array([0, 1, 0]))
        array([5., 1.])
    """
    return np.sqrt(np.bincount(groups, w * w))


def real_array(name: str, values: Any, *, ndim: int) -> npt.NDArray[np.float64]:
    """Finite float64 numbers of a scale whose squares can be computed with.

    Raises:
        InputError: Something else is given.
    """
    try:
        given = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} is no table of numbers: {error}") from error

    if given.dtype.kind not in "biuf":
        raise InputError(f"{name} holds values that are no real numbers (type {given.dtype})")

    array = given.astype(np.float64, copy=False)
    if array.ndim != ndim or not array.size:
        expected = "rows and columns" if ndim == 2 else "one value per row of X"
        raise InputError(f"{name} has shape {array.shape}: expected {expected}")

    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        flat = array.ravel(order="K")
        power = float(flat @ flat)  # one pass that meets NaN, infinity and extreme scales alike

    if not _SMALLEST_POWER < power < _LARGEST_POWER and flat.any():
        _refuse(name, array)

    return array


def _refuse(name: str, array: npt.NDArray[np.float64]) -> None:
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        place = ", ".join(f"{axis} {i + 1}" for axis, i in zip(("row", "column"), where, strict=False))
        raise InputError(f"{name} holds {array[where]} at {place}: expected finite numbers")
    raise InputError(
        f"{name} has values up to {np.abs(array).max():.1e}, whose squares are out of range: rescale it"
    )
