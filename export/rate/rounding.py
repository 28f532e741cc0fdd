"""Second-order rounding with rate: levels of least ``importance * error' H error + price * bits``.

First one pass in the order of columns that hands the error of each on to the columns that are still open (optimal
brain surgeon in its Cholesky form), then sweeps of coordinate descent on the objective itself, with what the coder has
learned in between. Columns are sequential; rows, which never mix, are one vector, and blocks of columns are settled
with the rest by one matrix product.

Sources: Hassibi and Stork 1993; Frantar et al. 2022, arXiv:2210.17323 (GPTQ) for the Cholesky form and its blocks;
arXiv:2505.18758 for the idea of a rate in the choice.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky
from scipy.linalg.lapack import dtrtri

from modelpress.export.rate.bit_costs import (
    MAX_LEVEL,
    BitCosts,
    Neighbourhood,
    bits_of,
    classes_of,
)

Floats = npt.NDArray[np.float64]
Levels = npt.NDArray[np.int16]
SWEEPS = 2
_BLOCK = 96  # columns


@dataclass(frozen=True)
class Problem:
    """The weights of one layer, as matrices that share nothing.

    Attributes:
        weights: What to come close to, shape ``(groups, rows, columns)``.
        hessian: How errors of columns work together: covariance of what they are multiplied with, shape
            ``(groups, columns, columns)``, positive definite.
        importance: What a squared error of a row costs, shape ``(groups, rows)``.
        price: Of a bit, in units of that cost.
        neighbourhood: How the columns lie in kernels.
        upper: `inverse_factor` of the Hessian, where it is known already.
    """

    weights: Floats
    hessian: Floats
    importance: Floats
    price: float
    neighbourhood: Neighbourhood
    upper: Floats | None = None


@dataclass(frozen=True)
class Rounded:
    """Levels of a problem.

    Attributes:
        levels: Shape of the weights.
        counts: What the coder will have counted after them.
        bits: What they are estimated to take.
    """

    levels: Levels
    counts: Floats
    bits: float


def rounded(problem: Problem, steps: Floats, costs: BitCosts, *, sweeps: int = SWEEPS) -> Rounded:
    """The levels of least loss and price.

    Args:
        problem: The weights.
        steps: Weight units per level, shape ``(groups, rows)``.
        costs: Of bits.
        sweeps: Of coordinate descent.
    """
    scaled = problem.weights / steps[:, :, None]
    factor = problem.importance * steps**2
    levels = np.clip(np.rint(scaled), -MAX_LEVEL, MAX_LEVEL)

    counts = _counts(problem, levels, costs)
    levels = _handed_on(problem, scaled, factor, levels, bits_of(counts))
    for _ in range(sweeps):
        counts = _counts(problem, levels, costs)
        levels, changed = _descended(problem, scaled, factor, levels, bits_of(counts))
        if not changed:
            break
    counts = _counts(problem, levels, costs)
    classes = classes_of(problem.neighbourhood.energies(np.abs(levels)))
    bits = bits_of(counts)[classes, np.abs(levels).astype(np.intp)].sum(dtype=np.float64)
    return Rounded(levels.astype(np.int16), counts, float(bits))


def conditional_variances(upper: Floats) -> Floats:
    """What is left of the variance of each column when those after it are known; shape ``(groups, columns)``.

    Args:
        upper: `inverse_factor` of the covariance.
    """
    return 1 / np.diagonal(upper, axis1=1, axis2=2) ** 2


def inverse_factor(hessian: Floats) -> Floats:
    """The upper triangular ``U`` of ``U' U = inverse of the Hessian``.

    Cholesky from the last column on gives ``R R' = H`` with ``R`` upper triangular, and ``U`` is its inverse: two
    thirds of ``n**3`` operations, a quarter of what inverse and Cholesky of that take.

    Example:
        >>> hessian = np.array([[[4.0, 1.0], [1.0, 2.0]]])
        >>> upper = inverse_factor(hessian)
        >>> bool(np.allclose(upper.swapaxes(1, 2) @ upper @ hessian, np.eye(2)))
        True
    """
    result = np.empty_like(hessian)
    for group, one in enumerate(hessian):
        lower = cholesky(one[::-1, ::-1], lower=True, check_finite=False)
        inverse, _ = dtrtri(lower, lower=1, overwrite_c=1)
        result[group] = inverse[::-1, ::-1]
    return result


def _counts(problem: Problem, levels: Floats, costs: BitCosts) -> Floats:
    magnitudes = np.abs(levels)
    classes = classes_of(problem.neighbourhood.energies(magnitudes))
    return costs.learned_from(levels.astype(np.int16), classes)


class _Choice:
    """The cheapest level of a column, given where its neighbours are."""

    def __init__(self, problem: Problem, levels: Floats, bits: npt.NDArray[np.float32]) -> None:
        self._near = problem.neighbourhood
        self._bits = problem.price * bits.astype(np.float64)
        self.magnitudes = np.abs(levels)
        self._rows = self._near.row_means(self.magnitudes)
        self._columns = self.magnitudes.mean(axis=1)

    def __call__(self, wanted: Floats, curvature: Floats, j: int) -> Floats:
        """Of the two levels around `wanted` and 0, the one of least error and bits."""
        classes = classes_of(self._near.energy(self.magnitudes, j, self._rows, self._columns))
        magnitude = np.abs(wanted)
        high = np.minimum(np.rint(magnitude), MAX_LEVEL)
        candidates = np.stack([high, np.maximum(high - 1, 0), np.zeros_like(high)])
        cost = curvature * (magnitude - candidates) ** 2 + self._bits[classes, candidates.astype(np.intp)]

        best = np.take_along_axis(candidates, cost.argmin(axis=0)[None], axis=0)[0]
        self.magnitudes[:, :, j] = best
        return np.asarray(np.copysign(best, wanted), np.float64)


def _handed_on(
    problem: Problem, scaled: Floats, factor: Floats, start: Floats, bits: npt.NDArray[np.float32]
) -> Floats:
    """One pass over the columns; what rounding one changes is made good by those after it."""
    upper = inverse_factor(problem.hessian) if problem.upper is None else problem.upper
    open_weights = scaled.copy()
    levels = start.copy()
    choose = _Choice(problem, start, bits)

    n = scaled.shape[2]
    for a in range(0, n, _BLOCK):
        b = min(a + _BLOCK, n)
        errors = np.empty((*scaled.shape[:2], b - a))
        for j in range(a, b):
            diagonal = upper[:, j, j][:, None]
            wanted = open_weights[:, :, j]
            levels[:, :, j] = choose(wanted, factor / diagonal**2, j)
            errors[:, :, j - a] = (wanted - levels[:, :, j]) / diagonal
            open_weights[:, :, j:b] -= errors[:, :, j - a, None] * upper[:, None, j, j:b]
        open_weights[:, :, b:] -= errors @ upper[:, a:b, b:]
    return levels


def _descended(
    problem: Problem, scaled: Floats, factor: Floats, start: Floats, bits: npt.NDArray[np.float32]
) -> tuple[Floats, bool]:
    """One sweep of coordinate descent, and whether it changed anything."""
    hessian = problem.hessian
    levels = start.copy()
    pull = (scaled - levels) @ hessian  # half of the negative gradient
    choose = _Choice(problem, start, bits)

    n = scaled.shape[2]
    for a in range(0, n, _BLOCK):
        b = min(a + _BLOCK, n)
        for j in range(a, b):
            curvature = hessian[:, j, j][:, None]
            before = levels[:, :, j].copy()
            levels[:, :, j] = choose(before + pull[:, :, j] / curvature, factor * curvature, j)
            pull[:, :, j:b] -= (levels[:, :, j] - before)[:, :, None] * hessian[:, None, j, j:b]
        moved = levels[:, :, a:b] - start[:, :, a:b]
        pull[:, :, b:] -= moved @ hessian[:, a:b, b:]
    return levels, bool((levels != start).any())
