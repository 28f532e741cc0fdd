"""Nodes in an order in which they can be computed: runtimes sort them, and some tools therefore do not."""

from heapq import heapify, heappop, heappush
from typing import Any

import onnx

from modelpress.export.graphs.index import reads_of
from modelpress.export.graphs.parts import graphs_of


def sort_nodes(model: onnx.ModelProto) -> bool:
    """Sort the nodes of every graph and function in place; whether any was out of order.

    A part that is in order stays as it is. In one that is not, each node comes as soon as what it reads is made, of
    several the one that came first. Nodes in a circle stay last, for the checker to refuse.
    """
    changed = [_sort(part.node) for part in model.functions]
    changed += [_sort(part.node) for _, part in graphs_of(model)]
    return any(changed)


def _sort(nodes: Any) -> bool:
    """Sort a repeated field of nodes in place."""
    listed: list[onnx.NodeProto] = list(nodes)
    makers = {name: k for k, node in enumerate(listed) for name in node.output if name}
    needs = [{makers[name] for name in reads_of(node) if name in makers} for node in listed]
    if all(maker < k for k, wanted in enumerate(needs) for maker in wanted):
        return False

    readers: list[list[int]] = [[] for _ in listed]
    for k, wanted in enumerate(needs):
        for maker in wanted:
            readers[maker].append(k)

    waiting = [len(wanted) for wanted in needs]
    ready = [k for k, n in enumerate(waiting) if not n]
    heapify(ready)

    order: list[int] = []
    while ready:
        k = heappop(ready)
        order.append(k)
        for reader in readers[k]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heappush(ready, reader)

    order += sorted(set(range(len(listed))) - set(order))
    copies = [onnx.NodeProto.FromString(listed[k].SerializeToString()) for k in order]
    del nodes[:]
    nodes.extend(copies)
    return True
