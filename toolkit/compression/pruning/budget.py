"""How many channels have to go for a network to cost no more than it may."""

import copy
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
from torch import Tensor

from modelpress.benchmarks.measures.layer_latency import LayerTable, name_of
from modelpress.export.errors import InputError
from modelpress.export.graphs.channels.branches import Branch
from modelpress.export.graphs.channels.costs import LayerShape
from modelpress.export.graphs.channels.shrinking import sizes_of, without_dead_channels
from modelpress.export.quantized import QuantizedModel
from modelpress.toolkit.compression.drawing import draw
from modelpress.toolkit.compression.freeze import freeze
from modelpress.toolkit.compression.pruning.channel_groups import (
    Block,
    Family,
    Masks,
    blocks_of,
    masks_without,
    row_squares,
)
from modelpress.toolkit.compression.pruning.coupling import Coupling
from modelpress.toolkit.compression.pruning.silence import silence
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.recipe import BudgetOptions, PruneOptions

Removed = frozenset[int]
Cost = Callable[[Removed], float]
_TRIES = 5  # networks that are timed as a whole
_LEAST = 1e-6  # of the full cost, that a group is taken to save
_CLOSE = 0.02  # of the limit: what timing a network once more would give as well


@dataclass(frozen=True)
class Step:
    """A block that goes, and which family it is of."""

    family: int
    block: Block


@dataclass(frozen=True)
class Met:
    """A budget that is kept.

    Attributes:
        masks: By layer.
        found: What was asked for and what was found, for the record.
    """

    masks: Masks
    found: dict[str, object]


def within_budget(
    state: NetworkState,
    weights: dict[str, Tensor],
    options: PruneOptions,
    coupling: Coupling,
    size_of: Callable[[NetworkState], int],
) -> Met:
    """The masks that remove as few channels as the budget allows.

    With one threshold for all layers, blocks of channels go in the order of what their loss costs: the share of the
    squares of their layers that they hold, for what is saved with them. With the same share for each layer, that share
    is sought.

    Args:
        state: Not quantized; it is left as it is.
        weights: That may be removed, by layer.
        options: With a budget.
        coupling: Of the network.
        size_of: Bytes of the file that a network would make.

    Raises:
        InputError: No choice of channels keeps the budget; the closest one is named.

    Source: Yang et al. 2018, "NetAdapt", arXiv:1804.03230, for latency from a table of measured layers.
    """
    budget = options.budget
    assert budget is not None  # who calls this has one
    families = blocks_of(
        weights, coupling, multiple=options.multiple, kept=state.masks, branches=options.branches
    )
    if budget.of != "bytes" and coupling.uncounted:
        raise InputError(
            f"prune.budget: what {', '.join(coupling.uncounted[:4])} costs is not known, since the graph does not say "
            "which shapes it takes: use a budget of bytes, or a sparsity"
        )
    gone = _gone(weights, coupling, state.masks)
    prices = _Prices(state, weights, coupling, size_of)
    losses = _losses(weights, coupling, state.masks)
    ends = [_share_added(family.branch, state, coupling) for family in families]

    def ordered(cost: Cost) -> list[Step]:
        if options.method.startswith("layer-"):
            return _by_share(families)
        return _by_worth(families, losses, ends, cost)

    if budget.of == "latency":
        table = LayerTable.read(None if options.latency_table is None else Path(options.latency_table))
        steps = ordered(partial(prices.from_table, table=table))
        chosen, share = _timed(steps, prices, table, budget, gone)
        table.keep()
    else:
        cost = prices.macs if budget.of == "macs" else prices.size
        chosen, share = _fewest(ordered(cost), cost, budget, gone)
        if budget.of == "macs":
            share = _checked(prices, chosen, budget)

    found = {**budget.model_dump(exclude_none=True), "found": round(share, 4)}
    return Met(masks_without(weights, coupling, set(chosen)), found)


def _gone(weights: Mapping[str, Tensor], coupling: Coupling, kept: Mapping[str, Tensor]) -> Removed:
    """Groups without any weight left: they go for nothing, whether or not the budget asks for it."""
    alive = {name: (weight.detach() != 0) & kept.get(name, True) for name, weight in weights.items()}
    return Removed(coupling.removed(alive) & coupling.removable(weights))


def _by_worth(
    families: Sequence[Family], losses: Mapping[int, float], ends: Sequence[float], cost: Cost
) -> list[Step]:
    """Blocks in order: those that cost the least for what they save go first.

    The last block of a branch costs what the branch adds as well: `ends`, for each family.

    What a block saves is its share of what all blocks of its family do together: single ones may even cost, where
    hardware likes other widths.
    """
    full, scored = cost(Removed()), []
    for number, family in enumerate(families):
        groups = Removed().union(*(block.groups for block in family.blocks))
        saved = (full - cost(groups)) / max(len(groups), 1)
        lost = [sum(losses[group] for group in block.groups) for block in family.blocks]
        if family.branch is not None:
            lost[-1] += ends[number]
        scores = [
            loss / (max(saved, full * _LEAST) * len(block.groups))
            for loss, block in zip(lost, family.blocks, strict=True)
        ]
        # within a family the smallest goes first
        scored += [
            (score, Step(number, b)) for score, b in zip(accumulate(scores, max), family.blocks, strict=True)
        ]
    return [step for _, step in sorted(scored, key=lambda each: each[0])]


def _by_share(families: Sequence[Family]) -> list[Step]:
    """Blocks in order: of each family the same share of its weights."""
    scored = []
    for number, family in enumerate(families):
        ends = accumulate(block.n_weights / family.n_weights for block in family.blocks)
        scored += [(end, Step(number, block)) for end, block in zip(ends, family.blocks, strict=True)]
    return [step for _, step in sorted(scored, key=lambda each: each[0])]


def _losses(
    weights: Mapping[str, Tensor], coupling: Coupling, kept: Mapping[str, Tensor]
) -> dict[int, float]:
    """Of each group, the share of a layer's squares that its channels hold, summed over layers."""
    losses: dict[int, float] = {}
    for name, weight in weights.items():
        squares = row_squares(weight, kept.get(name))
        shares = (squares / squares.sum().clamp(min=1e-30)).tolist()
        for group, share in zip(coupling.layers[name].tolist(), shares, strict=True):
            losses[group] = losses.get(group, 0.0) + share
    return losses


def _share_added(branch: Branch | None, state: NetworkState, coupling: Coupling) -> float:
    """Of what is added to the channels that a branch ends in, the share that this branch adds.

    By the squares of factors and biases of normalisations: a normalised channel has the variance of its factor. All
    of it, where there are none.
    """
    if branch is None or not branch.shifts:
        return 1.0
    parameters = dict(state.network.named_parameters())
    ends_in = set(coupling.shifts[branch.shifts[-1]].tolist())

    def squares(names: Iterable[str]) -> float:
        return sum(float(parameters[name].detach().double().square().sum()) for name in names)

    same = [name for name, groups in coupling.shifts.items() if ends_in & set(groups.tolist())]
    return squares(branch.shifts) / max(squares({*same, *branch.shifts}), 1e-30)


class _Prices:
    """What a network costs without some of its channels.

    Args:
        state: The network; copied once, and drawn once.
        weights: That may be removed, by layer.
        coupling: Of the network.
        size_of: Bytes of a file.
    """

    def __init__(
        self,
        state: NetworkState,
        weights: Mapping[str, Tensor],
        coupling: Coupling,
        size_of: Callable[[NetworkState], int],
    ) -> None:
        history = {**state.history, "prune": {"granularity": "channel"}}
        self._masks, self._full = state.masks, copy.deepcopy(state.network.state_dict())
        self._state = replace(state, network=copy.deepcopy(state.network), history=history)
        self._weights, self._coupling, self._size_of = weights, coupling, size_of

    def macs(self, removed: Removed) -> float:
        """Multiplications for one example."""
        return float(sum(shape.macs for shape in self._shapes(removed)))

    def really(self, removed: Removed) -> int:
        """Multiplications for one example of the graph that is left."""
        return sizes_of(self._drawn(removed))[1]

    def size(self, removed: Removed) -> float:
        """Bytes of the file."""
        return float(self._size_of(self._without(removed)))

    def from_table(self, removed: Removed, table: LayerTable) -> float:
        """Nanoseconds of all layers, by the table."""
        return sum(table.time_of(shape) for shape in self._shapes(removed) if shape.macs)

    def timed(self, removed: Removed, table: LayerTable) -> float:
        """Time of the whole network over that of the full one."""
        names = [name_of(shape) for gone in (removed, Removed()) for shape in self._shapes(gone)]
        operators = [node.op_type for node in draw(self._state.network, self._state.inputs).graph.graph.node]
        return table.ratio_of(lambda: (self._drawn(removed), self._drawn(Removed())), names, operators)

    def _shapes(self, removed: Removed) -> list[LayerShape]:
        gone = np.array(sorted(removed), np.int64)
        return [layer.without(gone) for layer in self._coupling.costs]

    def _without(self, removed: Removed) -> NetworkState:
        """The copy with these channels masked."""
        self._state.network.load_state_dict(self._full)
        masks = masks_without(self._weights, self._coupling, set(removed))
        masked = replace(self._state, masks={**self._masks, **masks})
        masked.compressed().settle()
        silence(masked.network, self._coupling, masked.masks)
        return masked

    def _drawn(self, removed: Removed) -> QuantizedModel:
        state = self._without(removed)
        return without_dead_channels(freeze(state.compressed(), state.inputs, metadata={})).model


def _fewest(steps: Sequence[Step], cost: Cost, budget: BudgetOptions, gone: Removed) -> tuple[Removed, float]:
    """The fewest blocks that keep the budget, beside what is `gone`, and the share of the full cost that is left.

    Raises:
        InputError: All of them do not.
    """
    full = cost(Removed())
    chosen = _within(steps, cost, budget.most(full), gone)
    found = cost(chosen)
    if found > budget.most(full):
        raise _unmet(budget, f"{found:,.0f} {budget.of}, {found / full:.3f}x")
    return chosen, found / full


def _checked(prices: "_Prices", chosen: Removed, budget: BudgetOptions) -> float:
    """The share of the multiplications that is left once channels have been taken out.

    Raises:
        InputError: Not all of the channels can be: what a constant adds before a padded convolution cannot be moved.
    """
    full, left = prices.macs(Removed()), prices.really(chosen)
    if left > budget.most(full):
        raise _unmet(
            budget,
            f"{left:,} macs, {left / full:.3f}x, since not all channels that are zero can be taken out",
        )
    return left / full


def _within(steps: Sequence[Step], cost: Cost, limit: float, gone: Removed) -> Removed:
    """As many steps as it takes, found by halving, without those that need not have been; all, if none will do."""

    def first(n: int) -> Removed:
        return gone.union(*(step.block.groups for step in steps[:n]))

    taken = bisect_left(range(len(steps)), True, key=lambda n: cost(first(n)) <= limit)
    removed, stuck = first(taken), set()
    for step in reversed(steps[:taken]):
        with_it = (removed - frozenset(step.block.groups)) | gone
        if step.family not in stuck and cost(with_it) <= limit:
            removed = with_it
        else:
            stuck.add(step.family)  # what is smaller goes before what is larger
    return removed


def _timed(
    steps: Sequence[Step], prices: _Prices, table: LayerTable, budget: BudgetOptions, gone: Removed
) -> tuple[Removed, float]:
    """A choice whose whole network keeps the latency, by the table, which is corrected by what whole networks take.

    Raises:
        InputError: None was found.
    """
    limit, full = budget.most(1.0), prices.from_table(Removed(), table)
    tried: dict[Removed, float] = {}
    slower = 1.0  # than its layers say, is the whole network
    for _ in range(_TRIES):
        found = _within(
            steps, partial(_predicted, prices=prices, table=table, full=full / slower), limit, gone
        )
        if found in tried:
            break
        tried[found] = prices.timed(found, table)
        slower = tried[found] * full / prices.from_table(found, table)

    kept = {removed: ratio for removed, ratio in tried.items() if ratio <= limit * (1 + _CLOSE)}
    if not kept:
        raise _unmet(budget, f"{min(tried.values()):.3f}x")
    return max(kept.items(), key=lambda item: item[1])


def _predicted(removed: Removed, *, prices: _Prices, table: LayerTable, full: float) -> float:
    return prices.from_table(removed, table) / full


def _unmet(budget: BudgetOptions, closest: str) -> InputError:
    asked_for = f"{budget.of} {getattr(budget, budget.of)}"
    return InputError(
        f"prune.budget: {asked_for} cannot be met; the closest that was found, with all channels gone that may go, is "
        f"{closest}: raise the budget to that, lower prune.multiple, or exclude fewer layers"
    )
