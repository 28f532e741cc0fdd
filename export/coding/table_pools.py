"""Which tensors code alike: they are pooled where one set of tables for all is shorter than one for each.

A set of tables costs its bytes once, and fits every tensor that shares it a little worse than its own would. One after
another, tensors are taken out of their pools and put where they cost least, and pools are fitted anew each time, until
nothing moves: k-means with the length of the code as distance, and as many pools as pay.

Source: Lloyd 1982, "Least squares quantization in PCM"; one move at a time as in Hartigan and Wong 1979, "A k-means
clustering algorithm".
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.code_table import Counts

_SWEEPS = 8
_COUNTED_UP_TO = 64  # symbols; of a larger alphabet the entropy will do, which a code comes near to
_TABLE_HEAD_BITS = 16  # FORMAT.md, "Code tables": first symbol and number of symbols, usually a byte each
_POOL_BITS = 8  # FORMAT.md, "Chunks": the number of tables of a shared group

Name = tuple[str, int]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Part:
    """What one group of tables has to code of one tensor.

    Attributes:
        name: Parts of one name can be pooled.
        counts: One for each table.
    """

    name: Name
    counts: tuple[Counts, ...]


@dataclass(frozen=True, eq=False)
class Way:
    """One way to write a tensor.

    Attributes:
        plain_bits: That no table governs.
        pooled: Of every part, whether it starts in the pool of all that do; else it starts alone.
    """

    plain_bits: int
    parts: tuple[Part, ...]
    pooled: tuple[bool, ...]


@dataclass(frozen=True, eq=False)
class _Pool:
    """Parts under one set of tables; `bits`: of these and of all symbols."""

    n_members: int
    rows: Rows
    bits: int


@dataclass(eq=False)
class _Slot:
    """Holds a pool that changes as tensors come and go; None when the last has gone."""

    pool: _Pool | None


_Place = tuple[Way, tuple[_Slot, ...]]


def pools(tensors: Sequence[Sequence[Way]], starts: Sequence[Way]) -> dict[Name, list[tuple[Counts, ...]]]:
    """Pools of at least two tensors, by name: what is counted in each.

    Args:
        tensors: Of each, the ways to write it.
        starts: Of each, the way it is written at first.

    Example:
        >>> def way(*counts):
        ...     return Way(0, (Part(("levels", 1), (Counts(-1, np.array(counts)),)),), (False,))
        >>> ways = [way(80, 10, 10), way(70, 15, 15), way(3000, 3000, 60000)]
        >>> [[table.counts.tolist() for table in pool] for pool in pools([[w] for w in ways], ways)["levels", 1]]
        [[[150, 25, 25]]]
    """
    search = _Search(tensors, starts)
    search.run()
    return search.found()


class _Search:
    """Where every tensor is at the moment."""

    def __init__(self, tensors: Sequence[Sequence[Way]], starts: Sequence[Way]) -> None:
        self._tensors = tensors
        self._lowest: dict[Name, int] = {}
        self._rows: dict[Part, Rows] = {}
        self._alone: dict[Part, _Pool] = {}
        self._joined: dict[tuple[_Pool, Part], _Pool] = {}
        self._rest: dict[tuple[_Pool, Part], _Pool] = {}
        self._slots: dict[Name, list[_Slot]] = {}
        self._align()
        self._places = self._at_first(starts)

    def _align(self) -> None:
        """All counts of a name as arrays of one shape, `(tables, symbols)`."""
        by_name: dict[Name, list[Part]] = {}
        for part in {part: None for ways in self._tensors for way in ways for part in way.parts}:
            by_name.setdefault(part.name, []).append(part)

        for name, parts in by_name.items():
            used = [counts for part in parts for counts in part.counts if counts.counts.size]
            lowest = min((counts.lowest for counts in used), default=0)
            end = max((counts.lowest + counts.counts.size for counts in used), default=1)
            self._lowest[name] = lowest
            for part in parts:
                self._rows[part] = _aligned(part.counts, lowest, end)

    def _at_first(self, starts: Sequence[Way]) -> list[_Place]:
        common: dict[Name, _Slot] = {}
        places = []
        for way in starts:
            held = []
            for part, in_pool in zip(way.parts, way.pooled, strict=True):
                slot = common.setdefault(part.name, _Slot(None)) if in_pool else _Slot(None)
                self._put(part, slot)
                held.append(slot)
            places.append((way, tuple(held)))
        return places

    def run(self) -> None:
        """Move tensors until none moves; then give up pools whose tensors, all moved at once, do better elsewhere."""
        self._settle()
        for slot in [slot for slots in self._slots.values() for slot in slots]:
            if slot.pool is None or slot.pool.n_members == 1:
                continue

            before, places = self._bits(), self._places.copy()
            held = {name: [(other, other.pool) for other in slots] for name, slots in self._slots.items()}
            for index, (_, slots) in enumerate(places):
                if slot in slots:
                    self._move(index, banned=slot)
            self._settle()

            if self._bits() >= before:
                self._places = places
                self._slots = {name: [other for other, _ in pairs] for name, pairs in held.items()}
                for other, pool in (pair for pairs in held.values() for pair in pairs):
                    other.pool = pool

    def _settle(self) -> None:
        for _ in range(_SWEEPS):
            moved = [self._move(index) for index in range(len(self._tensors))]
            if not any(moved):
                break

    def _bits(self) -> int:
        """All tensors and tables."""
        pools = (slot.pool for slots in self._slots.values() for slot in slots)
        return sum(way.plain_bits for way, _ in self._places) + sum(
            pool.bits for pool in pools if pool is not None
        )

    def found(self) -> dict[Name, list[tuple[Counts, ...]]]:
        """The pools of more than one."""
        shared: dict[Name, list[tuple[Counts, ...]]] = {}
        for name, slots in self._slots.items():
            for slot in slots:
                if slot.pool is not None and slot.pool.n_members > 1:
                    counts = tuple(Counts(self._lowest[name], row) for row in slot.pool.rows)
                    shared.setdefault(name, []).append(counts)
        return shared

    def _move(self, index: int, *, banned: _Slot | None = None) -> bool:
        """Put a tensor where it costs least; returns whether that is less than before."""
        way, slots = self._places[index]
        before = way.plain_bits + sum(map(self._take, way.parts, slots))

        found = [self._cheapest(other, banned) for other in self._tensors[index]]
        bits, chosen, targets = min(found, key=lambda option: option[0])
        if bits >= before and banned is None:
            chosen, targets = way, slots
        for part, slot in zip(chosen.parts, targets, strict=True):
            self._put(part, slot)

        self._places[index] = chosen, targets
        return bits < before

    def _take(self, part: Part, slot: _Slot) -> int:
        """Take a part out of its pool; returns the bits that it took there."""
        pool = slot.pool
        if pool is None:
            raise ValueError(f"{part.name}: taken from an empty pool")
        if pool.n_members == 1:
            self._slots[part.name].remove(slot)
            slot.pool = None
            return pool.bits

        key = (pool, part)
        if key not in self._rest:
            rest = self._rest[key] = _pool(pool.n_members - 1, pool.rows - self._rows[part])
            self._joined[rest, part] = pool
        slot.pool = self._rest[key]
        return pool.bits - slot.pool.bits

    def _put(self, part: Part, slot: _Slot) -> None:
        if slot.pool is None:
            slot.pool = self._own(part)
            self._slots.setdefault(part.name, []).append(slot)
        else:
            slot.pool = self._join(slot.pool, part)

    def _cheapest(self, way: Way, banned: _Slot | None) -> tuple[int, Way, tuple[_Slot, ...]]:
        """Bits that a tensor adds in this way, and for each part the pool it joins, perhaps a new one."""
        bits, slots = way.plain_bits, []
        for part in way.parts:
            least, best = self._own(part).bits, _Slot(None)
            for slot in self._slots.get(part.name, ()):
                if slot.pool is not None and slot is not banned:
                    added = self._join(slot.pool, part).bits - slot.pool.bits
                    if added < least:
                        least, best = added, slot
            bits += least
            slots.append(best)
        return bits, way, tuple(slots)

    def _own(self, part: Part) -> _Pool:
        if part not in self._alone:
            self._alone[part] = _pool(1, self._rows[part])
        return self._alone[part]

    def _join(self, pool: _Pool, part: Part) -> _Pool:
        key = (pool, part)
        if key not in self._joined:
            joined = self._joined[key] = _pool(pool.n_members + 1, pool.rows + self._rows[part])
            self._rest[joined, part] = pool
        return self._joined[key]


def _aligned(counts: Iterable[Counts], lowest: int, end: int) -> Rows:
    counts = list(counts)
    rows = np.zeros((len(counts), end - lowest), np.int64)
    for row, some in zip(rows, counts, strict=True):
        start = some.lowest - lowest
        row[start : start + some.counts.size] = some.counts
    return rows


def _pool(n_members: int, rows: Rows) -> _Pool:
    used = rows > 0
    first, last = used.argmax(axis=1), rows.shape[1] - used[:, ::-1].argmax(axis=1)
    symbols = np.where(used.any(axis=1), last - first, 0)
    bits = len(rows) * _TABLE_HEAD_BITS + 8 * int(((symbols + 1) // 2).sum()) + _POOL_BITS * (n_members > 1)
    if rows.shape[1] > _COUNTED_UP_TO:
        return _Pool(n_members, rows, bits + round(_entropy_bits(rows)))
    return _Pool(n_members, rows, bits + sum(map(_huffman_bits, rows.tolist())))


def _huffman_bits(counts: list[int]) -> int:
    """Length of all symbols in the best code for these counts.

    Source: Huffman 1952, "A method for the construction of minimum-redundancy codes".
    """
    weights = [count for count in counts if count]
    heapq.heapify(weights)
    bits = 0
    while len(weights) > 1:
        pair = heapq.heappop(weights) + weights[0]
        heapq.heapreplace(weights, pair)
        bits += pair
    return bits


def _entropy_bits(rows: Rows) -> float:
    totals = np.maximum(rows.sum(axis=1, keepdims=True), 1)
    return float((rows * (np.log2(totals) - np.log2(np.maximum(rows, 1)))).sum())
