"""Proximal operators: each solves the argmin that its docstring states, in closed form.

They are pure functions of NumPy arrays or torch tensors alike; the result has the input's kind, shape and type, and
what they set to zero is exactly 0.0. The same functions serve the linear solvers and the training of networks.

Source: Parikh and Boyd 2014, "Proximal Algorithms", sections 6.5 and 7.1.
"""

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace

from modelpress.export.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor  # the operators never import torch themselves

Array = TypeVar("Array", npt.NDArray[np.float64], "Tensor")


def soft_threshold(v: Array, threshold: float) -> Array:
    """``argmin_w 1/2 ||w - v||^2 + threshold * ||w||_1``, elementwise.

    Every entry moves towards zero by `threshold` and stops there.

    Example:
        >>> soft_threshold(np.array([3.0, -0.5, -2.0]), 1.0)
        array([ 2.,  0., -1.])
    """
    return v - v.clip(-threshold, threshold)


def keep_largest(v: Array, k: int) -> Array:
    """``argmin_w 1/2 ||w - v||^2`` over all w with at most k nonzero entries (hard thresholding).

    Raises:
        InputError: k is outside 0 to the number of entries.

    Example:
        >>> keep_largest(np.array([3.0, -0.5, -2.0]), 2)
        array([ 3.,  0., -2.])
    """
    return array_namespace(v).where(largest(v, k), v, 0.0)


def trimmed_soft_threshold(v: Array, threshold: float, k: int) -> Array:
    """``argmin_w 1/2 ||w - v||^2 + threshold * (sum of |w_i| over all but the k largest)``.

    The k entries of largest magnitude stay as they are; the others are soft-thresholded. (The penalty is not convex:
    where magnitudes tie at the border, several minimisers exist and this is one of them.)

    Raises:
        InputError: k is outside 0 to the number of entries.

    Source: Yun et al. 2019, "Trimming the l1 Regularizer", arXiv:1805.07495, eq. (2).

    Example:
        >>> trimmed_soft_threshold(np.array([3.0, -0.5, -2.0]), 1.0, 1)
        array([ 3.,  0., -1.])
    """
    return array_namespace(v).where(largest(v, k), v, soft_threshold(v, threshold))


def block_soft_threshold(v: Array, threshold: Array) -> Array:
    """``argmin_w 1/2 ||w - v||^2 + sum_g threshold_g * ||w_g||_2``, with one group per row.

    Every row shrinks in length and keeps its direction; a row no longer than its threshold becomes zero.

    Args:
        v: Shape ``(groups, members)``.
        threshold: Shape ``(groups,)``, not negative.

    Source: Yuan and Lin 2006, "Model selection and estimation in regression with grouped variables", eq. (2.4).

    Example:
        >>> block_soft_threshold(np.array([[3.0, 4.0], [0.6, 0.8]]), np.array([1.0, 1.0]))
        array([[2.4, 3.2],
               [0. , 0. ]])
    """
    xp: Any = array_namespace(v)
    factor = block_factor(xp.linalg.vector_norm(v, axis=1), threshold)[:, None]
    return xp.where(factor > 0, v * factor, 0.0)


def block_factor(length: Array, threshold: Array) -> Array:
    """What `block_soft_threshold` multiplies groups of these lengths with: ``max(0, 1 - threshold / length)``.

    Example:
        >>> block_factor(np.array([5.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0]))
        array([0.8, 0. , 0. ])
    """
    xp: Any = array_namespace(length)
    survives = length > threshold
    return xp.where(survives, 1 - threshold / xp.where(survives, length, 1.0), 0.0)


def largest(v: Array, k: int) -> Any:
    """True at the k entries of largest magnitude; of equal magnitudes the later ones.

    Raises:
        InputError: k is outside 0 to the number of entries.

    Example:
        >>> largest(np.array([1.0, -2.0, 2.0]), 1)
        array([False, False,  True])
    """
    xp: Any = array_namespace(v)
    size = int(np.prod(v.shape))
    check_k(k, size)
    flat = xp.reshape(xp.abs(v), (-1,))
    chosen = xp.zeros_like(flat, dtype=xp.bool)
    chosen[xp.argsort(flat, stable=True)[size - k :]] = True
    return xp.reshape(chosen, v.shape)


def check_k(k: int, n_weights: int) -> None:
    """Raise InputError where k is no whole number from 0 to the number of weights."""
    if not isinstance(k, int | np.integer) or not 0 <= k <= n_weights:
        raise InputError(f"k is {k}: there are {n_weights} weights, so 0 to {n_weights} of them can be kept")
