"""A graph followed from its inputs to its outputs, channel by channel."""

from collections import defaultdict
from collections.abc import Callable

import onnx

from modelpress.export.graphs.activations import Shape, inferred_shapes
from modelpress.export.graphs.channels import elementwise, layers, moving, parts, resizing
from modelpress.export.graphs.channels.trace import Channels, Claim, Trace
from modelpress.export.graphs.check import stand_in
from modelpress.export.graphs.index import reads_of
from modelpress.export.graphs.operators import is_standard
from modelpress.export.quantized import QuantizedModel

_LAYERS = {
    "Conv": layers.conv,
    "ConvTranspose": layers.conv_transpose,
    "Gemm": layers.gemm,
    "MatMul": layers.matmul,
    "BatchNormalization": layers.batch_norm,
}
_OTHERS: dict[str, Callable[[Trace, onnx.NodeProto], Channels | None]] = {
    **dict.fromkeys(elementwise.UNARY, elementwise.unary),
    **dict.fromkeys(elementwise.BINARY, elementwise.binary),
    **dict.fromkeys(elementwise.POOLS, elementwise.pool),
    **dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceMin"), moving.reduce),
    "Concat": parts.concat,
    "Transpose": moving.transpose,
    "Unsqueeze": moving.unsqueeze,
    "Squeeze": moving.squeeze,
    "Flatten": moving.flatten,
    "Reshape": moving.reshape,
    "Pad": moving.pad,
    "Slice": parts.slices,
    **dict.fromkeys(("Resize", "Upsample"), resizing.resize),
}
_ANY_BATCH, _ANY_SIZE = 2, 64  # stand in for axes that a graph leaves open


def followed(model: QuantizedModel, *, evenly: bool = False) -> Trace:
    """What each activation's channels are, and which belong together.

    An operator that is not known here fixes the channels that it reads, as do the outputs of the graph; what it makes
    is not looked into.

    Args:
        model: Nodes in topological order; the edits of the result change them.
        evenly: Slices that share an activation out in equal parts lose the same channels each: a network that halves
            its channels halves what is left of them.
    """
    trace = Trace.of(model, shapes_of(model))
    for number, node in enumerate(trace.index.nodes):
        _visit(trace, number, node)

    if evenly:
        parts.join_equal_parts(trace)
    trace.fix([*trace.index.kept])
    _settle_tensors(trace)
    return trace


def shapes_of(model: QuantizedModel) -> dict[str, Shape]:
    """Shapes of activations, where they can be inferred; see `open_axes_filled`."""
    return shapes_with(model, batch=_ANY_BATCH, size=_ANY_SIZE)


def shapes_with(model: QuantizedModel, *, batch: int, size: int) -> dict[str, Shape]:
    """Shapes of activations, where they can be inferred, for these values of open axes."""
    found = inferred_shapes(stand_in(model), open_axes_filled(model, batch=batch, size=size))
    return {name: shape for name, (shape, _) in found.items()}


def open_axes_filled(
    model: QuantizedModel, *, batch: int = _ANY_BATCH, size: int = _ANY_SIZE
) -> dict[str, Shape]:
    """A shape for each input, with something in the place of the axes that it leaves open; of the first, the batch."""
    return {
        value.name: tuple(
            axis.dim_value if axis.dim_value > 0 else (size if k else batch)
            for k, axis in enumerate(value.type.tensor_type.shape.dim)
        )
        for value in model.graph.graph.input
        if value.name not in model.tensors
    }


def _visit(trace: Trace, number: int, node: onnx.NodeProto) -> None:
    if resizing.asks_for_sizes(trace, node):
        return
    before = len(trace.groups)
    found = _found(trace, number, node)
    if found is None:
        trace.fix(reads_of(node))
        trace.groups.fix(trace.groups.since(before))  # what was begun and given up
        return

    for name, channels in zip(node.output, found, strict=True):
        trace.channels[name] = channels


def _found(trace: Trace, number: int, node: onnx.NodeProto) -> list[Channels] | None:
    if not is_standard(node) or any(a.HasField("g") or len(a.graphs) for a in node.attribute):
        return None
    if node.op_type in _LAYERS:
        made = _LAYERS[node.op_type](trace, number, node)
        return None if made is None else [made]

    tracked = [name for name in node.input if name in trace.channels]
    if not tracked or (node.op_type not in elementwise.BINARY and node.input[0] not in trace.channels):
        return None
    if node.op_type == "Split":
        return parts.split(trace, node)

    follow = _OTHERS.get(node.op_type)
    made = None if follow is None else follow(trace, node)
    return None if made is None else [made]


def _settle_tensors(trace: Trace) -> None:
    """Join what reads of one tensor say of it, and fix what not every reader of it agrees to."""
    claims: defaultdict[str, list[Claim]] = defaultdict(list)
    for claim in trace.claims:
        claims[claim.tensor].append(claim)

    for name, own in claims.items():
        understood = trace.claimed[name] == trace.index.reads[name] and name not in trace.index.kept
        by_axis: defaultdict[int, list[Claim]] = defaultdict(list)
        for claim in own:
            by_axis[claim.axis].append(claim)

        for same in by_axis.values():
            agreed = len(same) == trace.claimed[name] and len({len(claim.slots) for claim in same}) == 1
            for claim in same:
                if agreed and understood:
                    trace.groups.join(same[0].slots, claim.slots)
                else:
                    trace.groups.fix(claim.slots)
