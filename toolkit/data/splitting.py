"""Fractions of examples: by a seed, from every class alike where there are classes."""

import numpy as np

from modelpress.export.errors import InputError
from modelpress.toolkit.data.rows import Array, Index


def set_apart(labels: Array | None, n: int, fraction: float, *, seed: int) -> tuple[Index, Index]:
    """Numbers of the examples that stay, and of those set apart, both ascending.

    Args:
        labels: The class of each, where every class is to give its share: at least one example, and not its last one.
        n: How many there are.
        fraction: To be set apart.
        seed: Of the choice.

    Raises:
        InputError: Nothing would stay.

    Example:
        >>> stay, apart = set_apart(np.repeat([0, 1], [8, 4]), 12, 0.25, seed=0)
        >>> len(stay), sorted(np.repeat([0, 1], [8, 4])[apart].tolist())
        (9, [0, 0, 1])
    """
    order = np.random.default_rng(seed).permutation(n)
    if not fraction:
        return np.arange(n), np.arange(0)
    if labels is None:
        apart = order[: round(fraction * n)]
    else:
        members = (order[labels[order] == label] for label in np.unique(labels))
        apart = np.concatenate([rows[: _share(len(rows), fraction)] for rows in members])

    stays = np.ones(n, np.bool_)
    stays[apart] = False
    if not stays.any():
        raise InputError(f"{n} examples leave none to train on once a fraction of {fraction:g} is set apart")
    return np.flatnonzero(stays), np.sort(apart)


def _share(n: int, fraction: float) -> int:
    if n == 1:
        return 0
    return min(max(round(fraction * n), 1), n - 1)
