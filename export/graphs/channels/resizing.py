"""Space in another size, and the sizes that a graph computes for that."""

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.export.graphs.channels.trace import Alive, Channels, Trace, attribute, give_constant
from modelpress.export.graphs.operators import is_standard

Found = Channels | None
Entries = npt.NDArray[np.int64]


def resize(trace: Trace, node: onnx.NodeProto) -> Found:
    """Space in another size, between its values or copies of them: what is the same everywhere stays the same."""
    taken, rank = trace.channels[node.input[0]], trace.rank(node.input[0])
    mode = attribute(node, "coordinate_transformation_mode", b"half_pixel")
    ratio = attribute(node, "keep_aspect_ratio_policy", b"stretch")
    if rank is None or mode == b"tf_crop_and_resize" or ratio != b"stretch":
        return None
    axes = [axis % rank for axis in attribute(node, "axes", range(rank))]
    given = list(node.input[1:])
    scales = given[0] if len(given) == 1 else given[1] if len(given) > 1 else ""
    sizes = given[2] if len(given) > 2 else ""
    if taken.axis not in axes:
        for name in filter(None, given):
            trace.claim(name, {})
        return taken

    place = axes.index(taken.axis)
    if scales and not sizes:
        factors = trace.constant(scales)
        if factors is None or factors.size != len(axes) or factors.reshape(-1)[place] != 1:
            return None
    elif not sizes or not _keeps_channels(trace, node, sizes, place, taken):
        return None
    for name in filter(None, given):
        trace.claim(name, {})
    return taken


def _keeps_channels(trace: Trace, node: onnx.NodeProto, sizes: str, place: int, taken: Channels) -> bool:
    """Whether the sizes that a node gives leave as many channels as there are; they follow what is removed."""
    reader, at = node, list(node.input).index(sizes)
    joined = trace.index.producer(sizes)
    if joined is not None and joined.op_type == "Concat" and trace.index.only_reader(sizes) is not None:
        reader, at = joined, 0
        while at < len(joined.input) and place >= (n := _length(trace, joined.input[at])) > 0:
            at, place = at + 1, place - n
        if at == len(joined.input) or _length(trace, joined.input[at]) <= place:
            return False

    part = reader.input[at]
    known = trace.constant(part)
    if known is None:
        return _is_own_size(trace, part, place, node)
    if known.ndim != 1 or place >= known.size or int(known[place]) != len(taken.slots):
        return False

    def edit(alive: Alive) -> None:
        changed = np.array(known)
        changed[place] = int(alive(taken.slots).sum())
        give_constant(trace, reader, at, changed)

    trace.edits.append(edit)
    return True


def _length(trace: Trace, name: str) -> int:
    """Of a list of sizes; 0: not known."""
    known = trace.constant(name)
    if known is not None:
        return known.size
    shape = trace.shapes.get(name, ())
    return shape[0] if len(shape) == 1 else 0


def _is_own_size(trace: Trace, name: str, place: int, node: onnx.NodeProto) -> bool:
    """Whether this entry is the number of channels that the node itself takes, asked of the activation."""
    cut = trace.index.producer(name)
    asked = None if cut is None else trace.index.producer(cut.input[0])
    if cut is None or asked is None or asked.op_type != "Shape" or asked.input[0] != node.input[0]:
        return False
    entries = _entries_read(trace, cut, _entries_of(trace, asked))
    return (
        entries is not None and place < len(entries) and entries[place] == trace.channels[node.input[0]].axis
    )


def asks_for_sizes(trace: Trace, node: onnx.NodeProto) -> bool:
    """Whether a node takes a shape, and what that says of the channels goes nowhere but to `resize`."""
    if node.op_type != "Shape" or not is_standard(node) or node.input[0] not in trace.channels:
        return False
    if trace.rank(node.input[0]) is None or node.output[0] in trace.index.kept:
        return False
    axis, entries = trace.channels[node.input[0]].axis, _entries_of(trace, node)
    if axis not in entries:
        return True
    for reader in trace.index.users(node.output[0]):
        read = _entries_read(trace, reader, entries)
        if (read is None or axis in read) and not _becomes_size_of(trace, reader.output[0], node.input[0]):
            return False
    return True


def _becomes_size_of(trace: Trace, name: str, activation: str) -> bool:
    """Whether sizes are only part of those that `resize` gives the same activation."""
    for kind in ("Concat", "Resize"):
        reader = trace.index.only_reader(name)
        if reader is None or trace.index.nodes[reader].op_type != kind:
            return False
        node = trace.index.nodes[reader]
        name = node.output[0]
    return node.input[0] == activation


def _entries_of(trace: Trace, asked: onnx.NodeProto) -> Entries:
    """Which axes a node tells the sizes of."""
    return np.arange(trace.rank(asked.input[0]) or 0)[
        attribute(asked, "start", 0) : attribute(asked, "end", None)
    ]


def _entries_read(trace: Trace, reader: onnx.NodeProto, entries: Entries) -> Entries | None:
    """Which of the entries of a shape a node takes; None: not known."""
    values = [trace.constant(name) for name in reader.input[1:] if name]
    if not is_standard(reader) or any(value is None for value in values):
        return None
    numbers = [np.asarray(value, np.int64).reshape(-1) for value in values]
    if reader.op_type == "Gather" and not attribute(reader, "axis", 0):
        inside = (numbers[0] >= -len(entries)) & (numbers[0] < len(entries))
        return np.asarray(entries[numbers[0]], np.int64) if inside.all() else None
    if reader.op_type == "Slice" and len(numbers) >= 2 and all(len(number) == 1 for number in numbers):
        step = int(numbers[3][0]) if len(numbers) > 3 else 1
        return entries[int(numbers[0][0]) : int(numbers[1][0]) : step]
    return None
