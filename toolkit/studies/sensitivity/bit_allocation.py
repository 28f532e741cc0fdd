"""Which width each layer gets when a budget of bytes has to do for all: a multiple-choice knapsack.

Source: Kellerer, Pferschy and Pisinger 2004, "Knapsack Problems", section 11.5 (dynamic programming over capacities).
"""

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import InputError

BUCKET = 8  # bytes


def allocate(
    costs: npt.ArrayLike, sizes: npt.ArrayLike, *, budget: int, bucket: int = BUCKET
) -> npt.NDArray[np.int64]:
    """One choice per layer: of all that keep the budget those of the smallest summed cost; of equal ones the smallest.

    Sizes are rounded up to whole buckets, so the budget is never exceeded; with ``bucket=1`` the choice is exact in
    bytes too. Memory: one byte per layer and bucket of the budget.

    Args:
        costs: Shape ``(layers, choices)``, finite, in any unit; negative ones count as 0.
        sizes: Shape ``(layers, choices)``, whole bytes.
        budget: Bytes for all layers together.
        bucket: Bytes.

    Returns:
        Shape ``(layers,)``: the number of the choice.

    Raises:
        InputError: A cost is not finite, or the budget is below `least_budget`.

    Example:
        >>> costs = [[0.9, 0.1, 0.0], [0.3, 0.2, 0.0]]
        >>> sizes = [[16, 32, 64], [16, 32, 64]]
        >>> allocate(costs, sizes, budget=48)
        array([1, 0])
    """
    gains = np.maximum(np.asarray(costs, np.float64), 0.0)  # (layers, choices); NaN stays
    if not np.isfinite(gains).all():
        layer, choice = np.argwhere(~np.isfinite(gains))[0]
        raise InputError(
            f"the cost of layer {layer}, choice {choice} is {gains[layer, choice]}; expected a number"
        )

    least = least_budget(sizes, bucket=bucket)
    if budget < least:
        raise InputError(
            f"a budget of {budget:,} bytes is too small: the smallest choices take {least:,} bytes"
        )

    units = _in_buckets(sizes, bucket)
    capacity = int(min(budget // bucket, units.max(axis=1).sum()))

    best = np.zeros(capacity + 1)  # smallest summed cost of the layers so far, by the buckets they may take
    chosen = np.empty((len(units), capacity + 1), np.uint8)
    for layer, (layer_units, layer_costs) in enumerate(zip(units, gains, strict=True)):
        best, chosen[layer] = _with_layer(best, layer_units, layer_costs)

    # of equal costs the one that takes fewest buckets
    return _traced_back(chosen, units, start=int(np.argmax(best == best[-1])))


def least_budget(sizes: npt.ArrayLike, *, bucket: int = BUCKET) -> int:
    """The smallest budget in bytes that `allocate` can keep.

    Example:
        >>> least_budget([[10, 20], [8, 30]])
        24
    """
    return int(_in_buckets(sizes, bucket).min(axis=1).sum()) * bucket


def _in_buckets(sizes: npt.ArrayLike, bucket: int) -> npt.NDArray[np.int64]:
    return -(-np.asarray(sizes, np.int64) // bucket)


def _with_layer(
    before: npt.NDArray[np.float64], units: npt.NDArray[np.int64], costs: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    """The smallest summed cost with one layer more, and the choice for it, by the buckets that may be taken."""
    best = np.full_like(before, np.inf)
    chosen = np.zeros(before.shape, np.uint8)

    for choice in np.argsort(units, kind="stable"):
        taken = int(units[choice])
        if taken >= len(before):
            break

        candidate = before[: len(before) - taken] + costs[choice]
        better = candidate < best[taken:]
        best[taken:][better] = candidate[better]
        chosen[taken:][better] = choice
    return best, chosen


def _traced_back(
    chosen: npt.NDArray[np.uint8], units: npt.NDArray[np.int64], *, start: int
) -> npt.NDArray[np.int64]:
    """The choices that lead to so many buckets, from the last layer to the first."""
    choices = np.zeros(len(chosen), np.int64)
    left = start
    for layer in range(len(chosen) - 1, -1, -1):
        choices[layer] = chosen[layer, left]
        left -= int(units[layer, choices[layer]])
    return choices
