"""Which Huffman encoding each tensor of a file takes, and which code tables tensors share.

A table that is shared costs its bytes once and fits every tensor a little worse. Both are counted, over the
whole file: from the pooled counts of all tensors shared tables are proposed; those that earn their bytes are taken,
best first; then they are fitted to the tensors that use them, and so on. From there on tensors that code alike are
pooled, so that there may be several shared tables of a kind.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from modelpress.export.coding.code_table import CodeTable, Counts
from modelpress.export.coding.table_pools import Part, Way, pools
from modelpress.export.press.encodings.huffman_blob import (
    NO_SHARED,
    OWN,
    Group,
    HuffmanPlan,
    Shared,
    SharedGroup,
)

_ROUNDS = 4
_POOLED_TENSORS = 64  # so many decide which pools there are
_JUDGED_TENSORS = 1024  # so many decide what is worth sharing; all may use it
MAX_GROUPS = 255  # a reference is one byte, 0 means the tensor's own

_Name = tuple[str, int]
_Pool = dict[_Name, tuple[Counts, ...]]


@dataclass(frozen=True)
class Choice:
    """The outcome.

    Attributes:
        plans: One per tensor; None where none of the plans beats `limits`.
        shared: The file's groups, by the coders' names.
    """

    plans: list[HuffmanPlan | None]
    shared: Shared

    @property
    def groups(self) -> list[Group]:
        """The tables of every shared group, in the order of their numbers."""
        groups = [group for some in self.shared.values() for group in some]
        return [group.tables for group in sorted(groups, key=lambda group: group.number)]


def choose(plans: Sequence[Sequence[HuffmanPlan]], limits: Sequence[int]) -> Choice:
    """Take the cheapest plan of every tensor.

    Args:
        plans: Per tensor, what could be written.
        limits: Per tensor, the bytes of the best other encoding, which a plan must stay below.
    """
    best = choose_alone(plans, limits)
    best_bytes = total_bytes(best, limits)
    pool = _pool(plans)

    for _ in range(_ROUNDS):
        choice = _with_tables(plans, limits, _earning(_numbered(pool), plans, limits))
        total = total_bytes(choice, limits)
        if total < best_bytes:
            best, best_bytes = choice, total
        pool = _pool_of_users(choice)
        if not pool:
            break

    return best


def choose_pooled(choice: Choice, plans: Sequence[Sequence[HuffmanPlan]], limits: Sequence[int]) -> Choice:
    """As `choice`, with several shared groups of one name where that is smaller.

    Args:
        choice: A way to write every tensor, to start from.
        plans: Per tensor, what could be written, those of `choice` among them.
        limits: As for `choose`.
    """
    step = max(-(-len(plans) // _POOLED_TENSORS), 1)
    some = list(zip(plans, choice.plans, limits, strict=True))[::step]
    searched = [_Ways(*parts, choice.shared) for parts in some]
    found = pools([ways.all for ways in searched], [ways.start for ways in searched])

    named = [(name, counts) for name, group in found.items() for counts in group][:MAX_GROUPS]
    groups = [(name, _group(number, counts)) for number, (name, counts) in enumerate(named, start=1)]
    fitted = _with_tables(plans, limits, _by_name(groups))

    # the search counts large alphabets by their entropy: by real bytes a group may have lost its tensors
    users = _users(fitted)
    kept = [(name, group) for name, group in groups if users[group.number] > 1]
    again = [(name, SharedGroup(k, group.tables)) for k, (name, group) in enumerate(kept, start=1)]
    options = (choice, fitted, _with_tables(plans, limits, _by_name(again)))
    return min(options, key=lambda option: total_bytes(option, limits))


def _by_name(groups: Sequence[tuple[_Name, SharedGroup]]) -> Shared:
    shared: dict[_Name, list[SharedGroup]] = {}
    for name, group in groups:
        shared.setdefault(name, []).append(group)
    return shared


def _users(choice: Choice) -> Counter[int]:
    """How many tensors refer to each shared group."""
    return Counter(
        number
        for plan in choice.plans
        if plan is not None
        for number, _, _ in plan.references(choice.shared)
        if number != OWN
    )


class _Ways:
    """The ways to write one tensor, for the search for pools."""

    def __init__(
        self, plans: Sequence[HuffmanPlan], chosen: HuffmanPlan | None, limit: int, shared: Shared
    ) -> None:
        self._parts: dict[tuple[object, ...], Part] = {}
        self.start = Way(8 * limit, (), ())
        self.all = [self.start]
        for plan in plans:
            parts = tuple(map(self._part, plan.coder.groups, plan.groups))
            pooled = (False,) * len(parts)
            if plan is chosen:
                pooled = tuple(number != OWN for number, _, _ in plan.references(shared))
            way = Way(8 * plan.plain_bytes, parts, pooled)
            self.all.append(way)
            if plan is chosen:
                self.start = way

    def _part(self, name: _Name, counts: tuple[Counts, ...]) -> Part:
        """One for all plans that count the same."""
        key = (name, *((some.lowest, some.counts.tobytes()) for some in counts))
        return self._parts.setdefault(key, Part(name, counts))


def choose_alone(plans: Sequence[Sequence[HuffmanPlan]], limits: Sequence[int]) -> Choice:
    """As `choose`, without shared tables."""
    return _with_tables(plans, limits, NO_SHARED)


def _with_tables(plans: Sequence[Sequence[HuffmanPlan]], limits: Sequence[int], shared: Shared) -> Choice:
    chosen: list[HuffmanPlan | None] = []
    for options, limit in zip(plans, limits, strict=True):
        plan = min(options, key=lambda option: option.n_bytes(shared), default=None)
        chosen.append(plan if plan is not None and plan.n_bytes(shared) < limit else None)
    return Choice(chosen, shared)


def total_bytes(choice: Choice, limits: Sequence[int]) -> int:
    """Bytes of all tensors and of the tables they share."""
    blobs = sum(
        limit if plan is None else plan.n_bytes(choice.shared)
        for plan, limit in zip(choice.plans, limits, strict=True)
    )
    return blobs + sum(_table_bytes(group) for group in choice.groups)


def _table_bytes(tables: Group) -> int:
    return 1 + sum(len(table.pack()) for table in tables)


def _pool(plans: Sequence[Sequence[HuffmanPlan]]) -> _Pool:
    """All counts of groups of one name together, where at least two tensors have some."""
    pool: _Pool = {}
    users: dict[_Name, int] = {}
    for options in plans:
        for plan in options:
            for name, counts in zip(plan.coder.groups, plan.groups, strict=True):
                _add(pool, name, counts)
        for name in {name for plan in options for name in plan.coder.groups}:
            users[name] = users.get(name, 0) + 1

    return {name: counts for name, counts in pool.items() if users[name] > 1}


def _pool_of_users(choice: Choice) -> _Pool:
    """Counts of the groups that chosen plans take from the shared tables."""
    pool: _Pool = {}
    for plan in choice.plans:
        if plan is None:
            continue
        for name, counts, (number, _, _) in zip(
            plan.coder.groups, plan.groups, plan.references(choice.shared), strict=True
        ):
            if number:
                _add(pool, name, counts)

    return pool


def _add(pool: _Pool, name: _Name, counts: tuple[Counts, ...]) -> None:
    before = pool.get(name, (Counts.none(),) * len(counts))
    pool[name] = tuple(a + b for a, b in zip(before, counts, strict=True))


def _numbered(pool: _Pool) -> Shared:
    names = list(pool)[:MAX_GROUPS]
    return {name: [_group(number, pool[name])] for number, name in enumerate(names, start=1)}


def _group(number: int, counts: tuple[Counts, ...]) -> SharedGroup:
    return SharedGroup(number, tuple(map(CodeTable.for_counts, counts)))


@dataclass(frozen=True)
class _Cost:
    """What one plan takes: plain bytes, and per group the bits with own tables and with shared ones."""

    plain_bytes: int
    names: tuple[_Name, ...]
    own_bits: tuple[int, ...]
    shared_bits: tuple[int, ...]

    def n_bytes(self, active: frozenset[_Name]) -> int:
        bits = sum(
            min(own, shared) if name in active else own
            for name, own, shared in zip(self.names, self.own_bits, self.shared_bits, strict=True)
        )
        return self.plain_bytes + (bits + 7) // 8


def _earning(shared: Shared, plans: Sequence[Sequence[HuffmanPlan]], limits: Sequence[int]) -> Shared:
    """The groups that are worth their bytes: added together with those their coder needs, best first."""
    costs = [[_cost(plan, shared) for plan in options] for options in plans[:_JUDGED_TENSORS]]
    table_bytes = {name: _table_bytes(group.tables) for name, (group,) in shared.items()}

    def total(active: frozenset[_Name]) -> int:
        blobs = sum(
            min([limit, *(cost.n_bytes(active) for cost in options)])
            for options, limit in zip(costs, limits[:_JUDGED_TENSORS], strict=True)
        )
        return blobs + sum(table_bytes[name] for name in active)

    sets = {frozenset(cost.names).intersection(shared) for options in costs for cost in options}
    sets |= {frozenset([name]) for name in shared}
    active: frozenset[_Name] = frozenset()
    active_total = total(active)
    while True:
        totals = {active | extra: total(active | extra) for extra in sets if not extra <= active}
        best = min(totals, key=lambda names: (totals[names], sorted(names)), default=active)
        if not totals or totals[best] >= active_total:
            break
        active, active_total = best, totals[best]
    kept = [name for name in shared if name in active]
    return {name: [SharedGroup(number, shared[name][0].tables)] for number, name in enumerate(kept, start=1)}


def _cost(plan: HuffmanPlan, shared: Shared) -> _Cost:
    return _Cost(
        plan.plain_bytes,
        plan.coder.groups,
        plan.own_bits,
        tuple(bits for _, _, bits in plan.references(shared)),
    )
