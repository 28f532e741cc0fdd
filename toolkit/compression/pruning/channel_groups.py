"""Which groups of coupled channels to remove: the smallest, in blocks that leave widths hardware likes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from modelpress.export.errors import InputError
from modelpress.export.graphs.channels.branches import Branch
from modelpress.toolkit.compression.pruning.coupling import FIXED, Coupling

Masks = dict[str, Tensor]
_BELOW_ALL = -1.0  # the size of a group that was removed before


@dataclass(frozen=True)
class Block:
    """Groups that go together.

    Attributes:
        groups: Their numbers.
        size: Mean square of their weights, in units of the layers; below zero where they were removed before.
        n_weights: What removing them removes.
    """

    groups: list[int]
    size: float
    n_weights: int


def prune_groups(
    weights: Mapping[str, Tensor],
    coupling: Coupling,
    *,
    sparsity: float,
    globally: bool,
    multiple: int = 1,
    kept: Mapping[str, Tensor] | None = None,
) -> Masks:
    """Masks that remove whole groups of channels, those of smallest root mean square over all their layers.

    Weights count in units of the root mean square of their layer, whose scale says nothing about its channels where a
    batch norm follows; by raw weights one layer may lose all of its channels but one.

    Args:
        weights: First axis: output channels.
        coupling: Which channels go together; a group that a layer outside `weights` shares stays.
        sparsity: Of all weights; as many blocks go as fit into it, but never the last one of a layer.
        globally: Rank the blocks of all layers together, or remove the same share of each set of layers that share
            channels.
        multiple: Widths are left at multiples of this.
        kept: Masks of an earlier pruning; groups that they removed go first.

    Raises:
        InputError: No channel can be removed.

    Source: the score of Li et al. 2017, arXiv:1608.08710, over groups as in Fang et al. 2023, arXiv:2301.12900.

    Example:
        >>> w = {"a": torch.tensor([[1.0], [0.1]]), "b": torch.tensor([[0.2], [0.3]])}
        >>> together = Coupling({"a": torch.tensor([0, 1]), "b": torch.tensor([0, 1])})
        >>> prune_groups(w, together, sparsity=0.5, globally=True)["b"].flatten()
        tensor([ True, False])
    """
    families = blocks_of(weights, coupling, multiple=multiple, kept=kept) if sparsity else []
    removed: set[int] = set()
    if globally:
        blocks = [block for own in families for block in own.blocks]
        removed |= smallest(blocks, sparsity * sum(map(torch.numel, weights.values())))
    else:
        for own in families:
            removed |= smallest(own.blocks, sparsity * own.n_weights)
    return masks_without(weights, coupling, removed)


@dataclass(frozen=True)
class Family:
    """Channels that the same layers share, and no others.

    Attributes:
        blocks: What can go, the smallest first; every layer keeps a block of one of its families, unless `branch` is
            there.
        n_weights: Of all groups.
        branch: The residual branch that goes with the last block.
    """

    blocks: list[Block]
    n_weights: int
    branch: Branch | None = None


def blocks_of(
    weights: Mapping[str, Tensor],
    coupling: Coupling,
    *,
    multiple: int = 1,
    kept: Mapping[str, Tensor] | None = None,
    branches: bool = False,
) -> list[Family]:
    """What can be removed, by families; arguments as in `prune_groups`.

    Args:
        branches: Residual branches may go altogether.

    Raises:
        InputError: Nothing can.
    """
    families = _families(weights, coupling)
    if not families:
        raise InputError(
            "no channel can be removed: outputs fix them, layers that stay dense, or operators that mix them; "
            "choose prune.granularity weight"
        )
    sizes, counts = _group_sizes(weights, coupling, kept or {})
    layers = [coupling.layers[name] for name in weights if name in coupling.layers]
    ends = {branch.groups: branch for branch in coupling.branches} if branches else {}
    staying = _staying(families, layers)

    found = []
    for number, family in enumerate(families):
        branch = ends.get(frozenset(family))
        parts = _parts(sorted(family, key=lambda g: sizes[g]), layers, multiple)
        if number in staying and branch is None:
            parts.pop()
        blocks = [
            Block(part, sum(sizes[g] for g in part) / len(part), sum(counts[g] for g in part))
            for part in parts
        ]
        found.append(Family(blocks, sum(counts[g] for g in family), branch))
    return found


def masks_without(weights: Mapping[str, Tensor], coupling: Coupling, removed: set[int]) -> Masks:
    """Masks that remove these groups."""
    gone = torch.tensor(sorted(removed), dtype=torch.int64)
    return {name: _mask(weight, coupling.layers.get(name), gone) for name, weight in weights.items()}


def _mask(weight: Tensor, groups: Tensor | None, gone: Tensor) -> Tensor:
    if groups is None:
        return torch.ones_like(weight, dtype=torch.bool)
    stays = ~torch.isin(groups, gone).to(weight.device)
    return stays.reshape(-1, *[1] * (weight.ndim - 1)).expand_as(weight).clone()


def _families(weights: Mapping[str, Tensor], coupling: Coupling) -> list[list[int]]:
    """Groups that can be removed, by the layers that they are the channels of."""
    layers: dict[int, list[str]] = {group: [] for group in sorted(coupling.removable(weights))}
    for name in weights:
        for group in dict.fromkeys(coupling.layers.get(name, torch.empty(0)).tolist()):
            if group in layers:
                layers[group].append(name)

    families: dict[tuple[str, ...], list[int]] = {}
    for group, names in layers.items():
        families.setdefault(tuple(names), []).append(group)
    return list(families.values())


def _staying(families: Sequence[Sequence[int]], layers: Sequence[Tensor]) -> set[int]:
    """Families that keep their last block, so that no layer loses all of its channels."""
    of_group = {group: number for number, family in enumerate(families) for group in family}
    staying: set[int] = set()
    for own in layers:
        inside = [of_group.get(group, FIXED) for group in own.tolist()]
        if FIXED not in inside and staying.isdisjoint(inside):
            staying.add(max(set(inside), key=inside.count))
    return staying


def _group_sizes(
    weights: Mapping[str, Tensor], coupling: Coupling, kept: Mapping[str, Tensor]
) -> tuple[dict[int, float], dict[int, int]]:
    """Mean square, in units of the layers, and number of the weights of each group."""
    squares: dict[int, float] = {}
    counts: dict[int, int] = {}
    for name, weight in weights.items():
        rows = row_squares(weight, kept.get(name))
        sums = (rows / unit_of(weight, rows) ** 2).tolist()
        for group, total in zip(coupling.layers.get(name, torch.empty(0)).tolist(), sums, strict=False):
            squares[group] = squares.get(group, 0.0) + total
            counts[group] = counts.get(group, 0) + weight[0].numel()

    before = coupling.removed(kept)
    sizes = {group: _BELOW_ALL if group in before else squares[group] / counts[group] for group in squares}
    return sizes, counts


def unit_of(weight: Tensor, rows: Tensor) -> float:
    """Root mean square of a layer's weights that are left; 1 where none is.

    Args:
        weight: All of them.
        rows: From `row_squares`.
    """
    left = rows > 0
    n_left = int(left.sum()) * weight[0].numel()
    return float(rows.sum() / max(n_left, 1)) ** 0.5 or 1.0


def row_squares(weight: Tensor, kept: Tensor | None) -> Tensor:
    """Sum of squares of each output channel, shape ``(out,)``, without what a mask of an earlier pruning removed."""
    masked = weight.detach() if kept is None else torch.where(kept, weight.detach(), 0.0)
    return masked.flatten(1).double().square().sum(dim=1)


def _parts(ordered: list[int], layers: Sequence[Tensor], multiple: int) -> list[list[int]]:
    """A family's groups, as many at a time as leave widths that are multiples."""
    members = torch.tensor(ordered)
    inside = [torch.isin(groups, members) for groups in layers]
    width, removable = max((len(own), int(own.sum())) for own in inside if own.any())

    # channels of a group in a layer: one, but for grouped convolutions
    each = max(1, removable // len(ordered))
    step = max(1, multiple // each)
    first = (width // each) % step or step
    starts = [0, *range(first, len(ordered), step)]
    return [ordered[a:b] for a, b in pairwise([*starts, len(ordered)])]


def smallest(blocks: Sequence[Block], n_weights: float) -> set[int]:
    """Groups of the smallest blocks, in order, up to the first that does not fit."""
    removed: set[int] = set()
    left = round(n_weights)
    for block in sorted(blocks, key=lambda block: block.size):
        left -= block.n_weights
        if left < 0:
            break
        removed.update(block.groups)
    return removed
