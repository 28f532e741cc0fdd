"""Operators that only lay channels out anew."""

from math import prod

import numpy as np
import onnx

from modelpress.export.graphs.channels.parts import side_by_side
from modelpress.export.graphs.channels.trace import (
    Alive,
    Array,
    Channels,
    Trace,
    attribute,
    give_constant,
)

Found = Channels | None


def transpose(trace: Trace, node: onnx.NodeProto) -> Found:
    """Axes in another order."""
    taken, order = trace.channels[node.input[0]], attribute(node, "perm")
    return None if order is None else taken.along(list(order).index(taken.axis))


def unsqueeze(trace: Trace, node: onnx.NodeProto) -> Found:
    """Further axes."""
    taken, axes, rank = trace.channels[node.input[0]], _axes(trace, node), trace.rank(node.input[0])
    if axes is None or rank is None:
        return None
    added = {axis % (rank + len(axes)) for axis in axes}
    return taken.along([k for k in range(rank + len(axes)) if k not in added][taken.axis])


def squeeze(trace: Trace, node: onnx.NodeProto) -> Found:
    """Fewer axes."""
    return _without(trace, node, keep=False)


def reduce(trace: Trace, node: onnx.NodeProto) -> Found:
    """A mean or maximum over other axes."""
    return _without(trace, node, keep=bool(attribute(node, "keepdims", 1)))


def flatten(trace: Trace, node: onnx.NodeProto) -> Found:
    """All axes behind the batch in one."""
    taken, shape = trace.channels[node.input[0]], trace.shapes.get(node.input[0])
    if taken.axis != 1 or shape is None or attribute(node, "axis", 1) != 1:
        return None
    return taken.take(np.repeat(np.arange(len(taken.slots)), prod(shape[2:])))


def reshape(trace: Trace, node: onnx.NodeProto) -> Found:
    """As `flatten`; or axes of space in one, behind the channels."""
    taken, target = trace.channels[node.input[0]], trace.constant(node.input[1])
    before, after = trace.shapes.get(node.input[0]), trace.shapes.get(node.output[0])
    if taken.axis != 1 or target is None or before is None or after is None or len(after) < 2:
        return None
    if target.shape != (len(after),) or (target[0] > 0 and len(after) != 2 and target[0] != before[0]):
        return None

    if before[0] != after[0]:
        return None
    if len(after) == 2 and after[1] == prod(before[1:]):
        found = taken.take(np.repeat(np.arange(len(taken.slots)), prod(before[2:])))
    elif before[1] == after[1]:
        found = taken
    else:
        return None
    trace.claimed[node.input[1]] += 1

    def edit(alive: Alive) -> None:
        if target[1] > 0:
            left = np.array(target)
            left[1] = int(alive(found.slots).sum())
            give_constant(trace, node, 1, left)

    trace.edits.append(edit)
    return found


def pad(trace: Trace, node: onnx.NodeProto) -> Found:
    """Borders of space; or further channels of one value."""
    taken, pads = (
        trace.channels[node.input[0]],
        trace.constant(node.input[1]) if len(node.input) > 1 else None,
    )
    rank = trace.rank(node.input[0])
    if pads is None or rank is None or pads.shape != (2 * rank,) or len(node.input) > 3:
        return None
    value = 0.0
    if len(node.input) > 2 and node.input[2]:
        given = trace.constant(node.input[2])
        if given is None or given.size != 1:
            return None
        value = float(given.reshape(-1)[0])
    if attribute(node, "mode", b"constant") != b"constant" or (pads < 0).any():
        return None

    for name in filter(None, node.input[1:]):
        trace.claim(name, {})
    front, back = int(pads[taken.axis]), int(pads[taken.axis + rank])
    space = np.delete(pads, [taken.axis, taken.axis + rank]).any()
    inner = taken.where(taken.value == value) if space else taken
    if not front + back:
        return inner
    edges = [
        Channels(taken.axis, trace.groups.new(n), np.ones(n, np.bool_), np.full(n, value))
        for n in (front, back)
    ]
    return _padded(trace, node, np.array(pads), [edges[0], inner, edges[1]])


def _padded(trace: Trace, node: onnx.NodeProto, pads: Array, parts: list[Channels]) -> Channels:
    """Channels between two edges of further ones."""
    rank, axis = len(pads) // 2, parts[1].axis

    def edit(alive: Alive) -> None:
        for place, edge in ((axis, parts[0]), (axis + rank, parts[2])):
            pads[place] = int(alive(edge.slots).sum())
        give_constant(trace, node, 1, pads)

    trace.edits.append(edit)
    return side_by_side(parts)


def _without(trace: Trace, node: onnx.NodeProto, *, keep: bool) -> Found:
    taken, axes, rank = trace.channels[node.input[0]], _axes(trace, node), trace.rank(node.input[0])
    if axes is None or rank is None:
        return None
    gone = {axis % rank for axis in axes}
    if taken.axis in gone:
        return None
    return taken if keep else taken.along([k for k in range(rank) if k not in gone].index(taken.axis))


def _axes(trace: Trace, node: onnx.NodeProto) -> list[int] | None:
    if len(node.input) < 2 or not node.input[1]:
        given = attribute(node, "axes")
        return None if given is None else list(given)
    constant = trace.constant(node.input[1])
    if constant is None:
        return None
    trace.claim(node.input[1], {})
    return [int(axis) for axis in constant.reshape(-1)]
