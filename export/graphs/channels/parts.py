"""Operators that lay channels side by side, or take them apart."""

from itertools import pairwise

import numpy as np
import onnx

from modelpress.export.graphs.channels.trace import (
    Alive,
    Channels,
    Trace,
    attribute,
    give_constant,
    set_attribute,
)

Found = Channels | None


def concat(trace: Trace, node: onnx.NodeProto) -> Found:
    """Channels one after the other; or the same ones, where another axis is joined."""
    rank = trace.rank(node.input[0])
    parts = [trace.channels[name] for name in node.input if name in trace.channels]
    if rank is None or len(parts) < len(node.input) or len({part.axis for part in parts}) > 1:
        return None

    first, axis = parts[0], attribute(node, "axis") % rank
    if axis == first.axis:
        return side_by_side(parts)

    for part in parts[1:]:
        trace.groups.join(first.slots, part.slots)
    same = np.all([p.known & (p.value == first.value) for p in parts], axis=0)
    return first.where(same)


def side_by_side(parts: list[Channels]) -> Channels:
    """Those of the first, then those of the second, and so on."""
    joined = {name: np.concatenate([getattr(p, name) for p in parts]) for name in ("slots", "known", "value")}
    return Channels(parts[0].axis, **joined)


def slices(trace: Trace, node: onnx.NodeProto) -> Found:
    """A part of space; or of the channels."""
    taken, rank = trace.channels[node.input[0]], trace.rank(node.input[0])
    values = [trace.constant(name) for name in node.input[1:]]
    if rank is None or len(values) < 3 or any(v is None for v in values):
        return None
    starts, ends, axes = (np.asarray(value).reshape(-1) for value in values[:3])
    steps = np.ones(len(axes)) if len(values) < 4 else np.asarray(values[3]).reshape(-1)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        return None
    places = [k for k, axis in enumerate(axes) if int(axis) % rank == taken.axis]
    if any(steps[k] != 1 for k in places) or len(places) > 1:
        return None
    for name in filter(None, node.input[1:]):
        trace.claim(name, {})
    if not places:
        return taken

    (k,), order = places, np.arange(len(taken.slots))
    part = order[int(starts[k]) : int(ends[k])]
    before = order[: part[0]] if len(part) else order

    def edit(alive: Alive) -> None:
        first, left = (int(alive(taken.slots[those]).sum()) for those in (before, part))
        for place, bounds, value in ((1, starts, first), (2, ends, first + left)):
            changed = np.array(bounds)
            changed[k] = value
            give_constant(trace, node, place, changed)

    trace.edits.append(edit)
    return taken.take(part)


def split(trace: Trace, node: onnx.NodeProto) -> list[Channels] | None:
    """Channels in several parts; parts of equal sizes that are not written down stay equal."""
    taken, rank = trace.channels[node.input[0]], trace.rank(node.input[0])
    if rank is None:
        return None
    stored = node.input[1] if len(node.input) > 1 else ""
    sizes = trace.constant(stored) if stored else attribute(node, "split")
    if stored and sizes is None:
        return None
    if attribute(node, "axis", 0) % rank != taken.axis:
        if stored:
            trace.claim(stored, {})
        return [taken] * len(node.output)

    n, n_parts = len(taken.slots), len(node.output)
    written = np.full(n_parts, n // n_parts) if sizes is None else np.asarray(sizes)
    if int(written.sum()) != n or len(written) != n_parts or (written < 0).any():
        return None
    parts = [taken.take(np.arange(start, end)) for start, end in pairwise([0, *np.cumsum(written).tolist()])]
    if stored:
        trace.claim(stored, {})
    if sizes is None:
        for part in parts[1:]:
            trace.groups.join(parts[0].slots, part.slots)
        return parts

    def edit(alive: Alive) -> None:
        left = np.array([alive(part.slots).sum() for part in parts], np.int64)
        if stored:
            give_constant(trace, node, 1, left)
        else:
            set_attribute(node, "split", left.tolist())

    trace.edits.append(edit)
    return parts


def join_equal_parts(trace: Trace) -> None:
    """Let slices that share an activation out in equal parts keep equal parts of what is left."""
    for name, taken in trace.channels.items():
        readers = [node for node in trace.index.users(name) if node.op_type == "Slice"]
        parts = [trace.channels[node.output[0]] for node in readers if node.output[0] in trace.channels]
        shared_out = {
            tuple(part.slots): part.slots for part in parts if 0 < len(part.slots) < len(taken.slots)
        }
        own = sorted(shared_out.values(), key=lambda slots: int(np.argmax(taken.slots == slots[0])))
        if len({len(slots) for slots in own}) == 1 and np.array_equal(np.concatenate(own), taken.slots):
            for slots in own[1:]:
                trace.groups.join(own[0], slots)
