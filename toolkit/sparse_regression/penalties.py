"""Penalties: what each adds to the objective, beside the proximal operator that belongs to it."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import InputError
from modelpress.toolkit.sparse_regression.objectives import (
    Vector,
    group_lengths,
    group_norm,
    l1_norm,
    trimmed_l1_norm,
)
from modelpress.toolkit.sparse_regression.prox import (
    block_factor,
    check_k,
    keep_largest,
    soft_threshold,
    trimmed_soft_threshold,
)


class Penalty(Protocol):
    """A function of the weights that is added to the squared error."""

    convex: ClassVar[bool]

    def check(self, n_weights: int) -> None:
        """Raise InputError where it does not fit so many weights."""

    def value(self, w: Vector) -> float:
        """What it adds to the objective."""
        ...

    def prox(self, v: Vector, step: float) -> Vector:
        """``argmin_w 1/2 ||w - v||^2 + step * value(w)``."""
        ...


@dataclass(frozen=True)
class NoPenalty:
    """Zero; its proximal operator is the identity."""

    convex: ClassVar[bool] = True

    def check(self, n_weights: int) -> None:
        """Fits any number of weights."""

    def value(self, w: Vector) -> float:
        """0."""
        return 0.0

    def prox(self, v: Vector, step: float) -> Vector:
        """v itself."""
        return v


@dataclass(frozen=True)
class L1:
    """``strength * ||w||_1``.

    Source: Tibshirani 1996, "Regression shrinkage and selection via the lasso".
    """

    strength: float
    convex: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_strength(self.strength)

    def check(self, n_weights: int) -> None:
        """Fits any number of weights."""

    def value(self, w: Vector) -> float:
        """``strength * ||w||_1``."""
        return self.strength * l1_norm(w)

    def prox(self, v: Vector, step: float) -> Vector:
        """Soft threshold by ``step * strength``."""
        return soft_threshold(v, step * self.strength)

    def subgradient(self, w: Vector) -> Vector:
        """``strength * sign(w)``, with 0 at 0."""
        return self.strength * np.sign(w)

    def dual_norm(self, u: Vector) -> float:
        """``max_i |u_i| / strength``: at most 1 where u can stand for a subgradient of the penalty."""
        return float(np.abs(u).max() / self.strength)


@dataclass(frozen=True)
class TrimmedL1:
    """``strength * (sum of |w_i| over all but the k largest)``: what has k nonzero weights or fewer is free.

    Source: Yun et al. 2019, "Trimming the l1 Regularizer", arXiv:1805.07495.
    """

    strength: float
    k: int
    convex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_strength(self.strength)

    def check(self, n_weights: int) -> None:
        """Raise InputError where k is outside 0 to the number of weights."""
        check_k(self.k, n_weights)

    def value(self, w: Vector) -> float:
        """``strength * trimmed_l1_norm(w, k)``."""
        return self.strength * trimmed_l1_norm(w, self.k)

    def prox(self, v: Vector, step: float) -> Vector:
        """Soft threshold of all but the k largest."""
        return trimmed_soft_threshold(v, step * self.strength, self.k)


@dataclass(frozen=True)
class AtMost:
    """The constraint that at most k weights are not zero; with proximal steps, iterative hard thresholding.

    Source: Blumensath and Davies 2009, "Iterative hard thresholding for compressed sensing", eq. (10).
    """

    k: int
    convex: ClassVar[bool] = False

    def check(self, n_weights: int) -> None:
        """Raise InputError where k is outside 0 to the number of weights."""
        check_k(self.k, n_weights)

    def value(self, w: Vector) -> float:
        """0 where the constraint holds, else infinity."""
        return 0.0 if np.count_nonzero(w) <= self.k else np.inf

    def prox(self, v: Vector, step: float) -> Vector:
        """The k largest magnitudes."""
        return keep_largest(v, self.k)


@dataclass(frozen=True, eq=False)
class GroupLasso:
    """``strength * sum_g sqrt(size of g) * ||w_g||_2``: whole groups become zero together.

    Args:
        strength: Not negative.
        groups: Shape ``(d,)``: the group of every weight, numbered from 0 without gaps.

    Source: Yuan and Lin 2006, "Model selection and estimation in regression with grouped variables", eq. (2.1).
    """

    strength: float
    groups: npt.NDArray[np.intp]
    convex: ClassVar[bool] = True
    _root_sizes: Vector = field(init=False, repr=False)  # (groups,)

    def __post_init__(self) -> None:
        _check_strength(self.strength)
        groups = np.asarray(self.groups)
        sizes = np.bincount(groups) if _are_labels(groups) else np.zeros(1, np.intp)
        if not sizes.all():
            raise InputError("groups: expected the group of every weight, whole numbers from 0 without gaps")
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "_root_sizes", np.sqrt(sizes))

    def check(self, n_weights: int) -> None:
        """Raise InputError where the groups are those of another number of weights."""
        if len(self.groups) != n_weights:
            raise InputError(f"groups name {len(self.groups)} weights, the problem has {n_weights}")

    def value(self, w: Vector) -> float:
        """The weighted sum of the groups' lengths."""
        return group_norm(w, self.groups, self.strength * self._root_sizes)

    def prox(self, v: Vector, step: float) -> Vector:
        """`block_soft_threshold`, for groups of any sizes and places."""
        threshold = step * self.strength * self._root_sizes
        factor = block_factor(group_lengths(v, self.groups), threshold)[self.groups]
        return np.where(factor > 0, v * factor, 0.0)

    def dual_norm(self, u: Vector) -> float:
        """``max_g ||u_g|| / (strength * sqrt(size of g))``."""
        return float((group_lengths(u, self.groups) / self._root_sizes).max() / self.strength)


def _are_labels(groups: npt.NDArray[Any]) -> bool:
    return groups.ndim == 1 and groups.size > 0 and groups.dtype.kind in "iu" and bool((groups >= 0).all())


def _check_strength(strength: float) -> None:
    if not 0 <= strength < np.inf:
        raise InputError(f"lambda is {strength}: expected a finite number that is not negative")
