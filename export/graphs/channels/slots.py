"""Channels with a number each, and which of them live and die together."""

import numpy as np
import numpy.typing as npt

Slots = npt.NDArray[np.int64]


class SlotGroups:
    """Numbers of channels, joined into groups; a fixed group may not be removed.

    Example:
        >>> groups = SlotGroups()
        >>> a, b = groups.new(2), groups.new(2)
        >>> groups.join(a, b)
        >>> groups.roots(np.concatenate([a, b])).tolist()
        [0, 1, 0, 1]
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._fixed: set[int] = set()

    def new(self, n: int) -> Slots:
        """Numbers of `n` new channels, each a group of its own."""
        first = len(self._parent)
        self._parent.extend(range(first, first + n))
        return np.arange(first, first + n)

    def since(self, n: int) -> Slots:
        """Numbers of the channels made after the first `n`."""
        return np.arange(n, len(self._parent))

    def __len__(self) -> int:
        return len(self._parent)

    def join(self, left: Slots, right: Slots) -> None:
        """Make one group of each pair."""
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            low, high = sorted((self._root(a), self._root(b)))
            self._parent[high] = low

    def join_all(self, slots: Slots) -> None:
        """Make one group of all."""
        self.join(slots[1:], slots[:-1])

    def fix(self, slots: Slots) -> None:
        """Let these channels and all of their groups stay."""
        self._fixed.update(slots.tolist())

    def roots(self, slots: Slots) -> Slots:
        """One number for each group, of these channels."""
        return np.array([self._root(slot) for slot in slots.tolist()], np.int64)

    def fixed(self) -> set[int]:
        """Numbers of the groups that stay."""
        return {self._root(slot) for slot in self._fixed}

    def _root(self, slot: int) -> int:
        while self._parent[slot] != slot:
            self._parent[slot] = self._parent[self._parent[slot]]  # halves the way for the next who asks
            slot = self._parent[slot]
        return slot
