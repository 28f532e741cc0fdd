"""Which groups of channels a graph can do without."""

from collections.abc import Sequence

import numpy as np

from modelpress.export.graphs.channels.layers import foldable
from modelpress.export.graphs.channels.slots import Slots
from modelpress.export.graphs.channels.trace import Trace


def removable_groups(trace: Trace) -> set[int]:
    """Numbers of the groups that every reader can do without; the fewer rows are left, the fewer readers there are.

    Fixed groups stay, and of every activation at least one channel.
    """
    fixed = trace.groups.fixed()
    roots = {id(sink): trace.groups.roots(sink.taken.slots) for sink in trace.sinks}
    made = {id(sink): trace.groups.roots(sink.made) for sink in trace.sinks}
    activations = [trace.groups.roots(channels.slots) for channels in trace.channels.values()]
    every = {int(root) for found in activations for root in found} - fixed

    removed: set[int] = set()
    while True:
        needed: set[int] = set()
        for sink in trace.sinks:
            rows = ~np.isin(made[id(sink)], list(removed))
            needs = sink.touched[rows].any(axis=0) & ~foldable(sink.taken, anywhere=sink.anywhere)
            needed.update(roots[id(sink)][needs].tolist())

        found = _leaving_one(every - needed, activations)
        if found == removed:
            return removed
        removed = found


def _leaving_one(removable: set[int], activations: Sequence[Slots]) -> set[int]:
    """As many of these groups as leave every activation a channel."""
    removable = set(removable)
    for roots in activations:
        if len(roots) and removable.issuperset(roots.tolist()):
            removable.discard(int(roots[0]))
    return removable
