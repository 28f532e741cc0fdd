"""The first-order methods: each a generator of iterates, a transcription of its paper's update."""

from collections.abc import Iterator
from typing import Protocol

from modelpress.export.errors import InputError
from modelpress.toolkit.sparse_regression.objectives import Vector
from modelpress.toolkit.sparse_regression.penalties import L1, NoPenalty, Penalty

Iterates = Iterator[Vector]


class Smooth(Protocol):
    """The part of the objective that has a gradient."""

    def gradient(self, w: Vector) -> Vector:
        """At w; shape ``(d,)``."""
        ...


def gradient_descent(problem: Smooth, penalty: Penalty, w: Vector, step: float) -> Iterates:
    """``w <- w - step * gradient(w)`` (Cauchy 1847); the penalty has to be none."""
    if not isinstance(penalty, NoPenalty):
        raise InputError("gradient-descent takes no penalty; use subgradient, ista or fista")
    while True:
        w = w - step * problem.gradient(w)
        yield w


def subgradient(problem: Smooth, penalty: Penalty, w: Vector, step: float) -> Iterates:
    """``w <- w - step * (gradient(w) + lambda * sign(w))``, constant step (Shor 1985).

    It does not settle: weights that should be zero oscillate around it at the scale ``step * lambda``.
    """
    if not isinstance(penalty, L1):
        raise InputError("subgradient is for the L1 penalty; use ista or fista")
    while True:
        w = w - step * (problem.gradient(w) + penalty.subgradient(w))
        yield w


def ista(problem: Smooth, penalty: Penalty, w: Vector, step: float) -> Iterates:
    """Proximal gradient: ``w <- prox(w - step * gradient(w))``.

    With `AtMost` this is iterative hard thresholding. Source: Beck and Teboulle 2009, "A Fast Iterative
    Shrinkage-Thresholding Algorithm", eq. (1.4).
    """
    while True:
        w = penalty.prox(w - step * problem.gradient(w), step)
        yield w


def fista(problem: Smooth, penalty: Penalty, w: Vector, step: float) -> Iterates:
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
