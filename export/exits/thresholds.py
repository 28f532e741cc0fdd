"""Thresholds for early exits: the fastest within a loss, by what all exits say of held-out examples.

Leaving at an exit is a trade of time for errors. For a price of an error, the best threshold of one exit with the
others held is exact: the examples that reach it are sorted by confidence, and the best place to cut is where the sum of
what leaving gains is largest. Exits are improved in turn until none changes; the price is swept, and each price gives a
point of accuracy against cost.

Source: the prices are Lagrange's multipliers, as in rate-distortion optimisation: Shoham and Gersho 1988.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import InputError
from modelpress.export.exits.plan import Rule

Floats = npt.NDArray[np.float64]
NEVER = np.inf  # a threshold that no example reaches
_PRICES = np.geomspace(1e-2, 1e3, 61)  # of an error, in inferences of the whole network
_ROUNDS = 20  # of improving exits in turn; a few are enough


def confidences(logits: npt.NDArray[np.floating], rule: Rule) -> Floats:
    """How sure an exit is of each example.

    Args:
        logits: Shape ``(n, classes)``.
        rule: The largest probability, or its distance to the second.

    Returns:
        Shape ``(n,)``, 0 to 1.

    Example:
        >>> confidences(np.log([[0.7, 0.2, 0.1]]), "margin").round(3)
        array([0.5])
    """
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    top = np.sort(shifted / shifted.sum(axis=1, keepdims=True), axis=1)[:, ::-1]
    found: Floats = top[:, 0] if rule == "probability" else top[:, 0] - top[:, 1]
    return found


@dataclass(frozen=True)
class ExitRecord:
    """What all exits of a network say of some examples, the last exit at the end.

    Attributes:
        confidence: Shape ``(exits, n)``.
        right: Shape ``(exits, n)``: whether the class is the right one.
        cost: Shape ``(exits,)``: of an example that leaves there, in units of the network without exits; an exit that
            is not used costs nothing.
        heads: Shape ``(exits,)``: the share of each head in these costs.
    """

    confidence: Floats
    right: npt.NDArray[np.bool_]
    cost: Floats
    heads: Floats

    @classmethod
    def of(
        cls,
        logits: Sequence[npt.NDArray[np.floating]],
        labels: npt.NDArray[np.int64],
        rule: Rule,
        *,
        cost: Sequence[float],
        heads: Sequence[float],
    ) -> "ExitRecord":
        """From the logits of every exit, shape ``(n, classes)`` each, the last one at the end."""
        return cls(
            np.stack([confidences(each, rule) for each in logits]),
            np.stack([each.argmax(axis=1) == labels for each in logits]),
            np.asarray(cost, np.float64),
            np.asarray(heads, np.float64),
        )

    @property
    def n_early(self) -> int:
        """Exits without the last one."""
        return len(self.cost) - 1

    def exits_taken(self, thresholds: Floats) -> npt.NDArray[np.intp]:
        """By which exit each example leaves, shape ``(n,)``; `thresholds` has one for each early exit."""
        leaves = self.confidence >= np.append(thresholds, -np.inf)[:, None]
        taken: npt.NDArray[np.intp] = leaves.argmax(axis=0)
        return taken

    def costs(self, thresholds: Floats) -> Floats:
        """Of leaving at each exit, with the heads of those exits alone that are used."""
        unused = np.append(np.isinf(thresholds), False)
        costs: Floats = self.cost - np.cumsum(np.where(unused, self.heads, 0.0))
        return costs

    def outcome(self, thresholds: Floats) -> "Point":
        """What these thresholds give on the examples."""
        taken = self.exits_taken(thresholds)
        right = self.right[taken, np.arange(len(taken))]
        return Point(
            tuple(map(float, thresholds)), float(right.mean()), float(self.costs(thresholds)[taken].mean())
        )


@dataclass(frozen=True)
class Point:
    """Thresholds, and what they give.

    Attributes:
        thresholds: Of the early exits; infinite where an exit is not used.
        top1: Fraction right.
        cost: Mean, in units of the network without exits.
    """

    thresholds: tuple[float, ...]
    top1: float
    cost: float


def frontier(record: ExitRecord) -> list[Point]:
    """Accuracy against mean cost: the points that no other beats in both, the cheapest first."""
    never = np.full(record.n_early, NEVER)
    points = [record.outcome(never)]
    start = np.full(record.n_early, -np.inf)
    for price in _PRICES:
        for begin in (start, never):
            points.append(record.outcome(_best(record, float(price), begin)))

    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.top1)):
        if not best or point.top1 > best[-1].top1:
            best.append(point)
    return best


def choose_thresholds(record: ExitRecord, *, loss: float) -> Point:
    """The point of `frontier` of least mean cost whose top-1 is within `loss` points of the last exit's.

    One standard error is added to the loss that is seen: the cheapest of many points is the one that these examples
    flatter most, and the fewer they are the more.

    Args:
        record: Of held-out examples.
        loss: In points of top-1, that is hundredths.

    Raises:
        InputError: There are no examples.

    Example:
        >>> sure, right = np.array([[0.9, 0.6], [1, 1]]), np.array([[True, False], [True, True]])
        >>> record = ExitRecord(sure, right, np.array([0.5, 1.1]), np.array([0.1, 0.0]))
        >>> choose_thresholds(record, loss=0.5)
        Point(thresholds=(0.75,), top1=1.0, cost=0.8)
    """
    if not record.right.shape[1]:
        raise InputError(
            "exits: thresholds are chosen on held-out images, and there are none: set data.validation above 0"
        )
    allowed = [point for point in frontier(record) if _loss(record, point) <= loss / 100 + 1e-12]
    return min(allowed, key=lambda point: point.cost)  # leaving nowhere is always allowed


def _loss(record: ExitRecord, point: Point) -> float:
    """What a point loses against the last exit, and one standard error of that, as examples are paired."""
    taken = record.exits_taken(np.array(point.thresholds))
    lost = record.right[-1].astype(np.float64) - record.right[taken, np.arange(len(taken))]
    return float(lost.mean() + lost.std() / np.sqrt(len(lost)))


def _best(record: ExitRecord, price: float, begin: Floats) -> Floats:
    """Thresholds of the least cost plus `price` times errors, each exit's the best for those of the others."""
    thresholds = begin.copy()
    for _ in range(_ROUNDS):
        before = thresholds.copy()
        for k in reversed(range(record.n_early)):
            thresholds[k] = _best_of_one(record, price, thresholds, k)
        if np.array_equal(before, thresholds):
            break
    return thresholds


def _best_of_one(record: ExitRecord, price: float, thresholds: Floats, k: int) -> float:
    """The best threshold of the k-th exit, others held; `NEVER` where its head costs more than it saves."""
    index = np.arange(record.right.shape[1])

    without = thresholds.copy()
    without[k] = NEVER
    taken = record.exits_taken(without)
    reaches = taken > k
    errors = ~record.right[taken, index]
    stays = record.costs(without)[taken] + price * errors

    used = np.where(np.isinf(thresholds) & (np.arange(record.n_early) == k), 0.0, thresholds)
    costs = record.costs(used)
    passes = costs[taken] + price * errors
    leaves = costs[k] + price * ~record.right[k]

    order = np.argsort(-record.confidence[k][reaches], kind="stable")
    sure = record.confidence[k][reaches][order]
    gains = np.cumsum((passes - leaves)[reaches][order])
    ends = np.append(sure[1:] < sure[:-1], True)[: len(sure)]  # equal confidences leave together
    if not len(sure) or not ends.any():
        return NEVER

    best = int(np.argmax(np.where(ends, gains, -np.inf)))
    if stays.sum() - (passes.sum() - gains[best]) <= 0:
        return NEVER
    below = sure[best + 1] if best + 1 < len(sure) else 0.0
    return float((sure[best] + below) / 2)  # halfway: float32 and integers round differently
