"""Operators that compute each channel from itself alone."""

from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from modelpress.export.graphs.channels.trace import Array, Channels, Role, Trace, attribute

Found = Channels | None
UNARY = frozenset(
    {"Abs", "Cast", "Ceil", "Celu", "Clip", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid"}
    | {"HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu"}
    | {"Sigmoid", "Sign", "Sin", "Cos", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu"}
)
BINARY = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "PRelu"})
POOLS = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})


def unary(trace: Trace, node: onnx.NodeProto) -> Found:
    """A function of each value; its other inputs are single constants."""
    if node.op_type == "Dropout" and len(node.input) > 2:
        return None  # it may be in training

    others = [name for name in node.input[1:] if name]
    fixed = {name: trace.constant(name) for name in others}
    if any(value is None or value.size != 1 for value in fixed.values()) or len(node.output) > 1:
        return None
    for name in others:
        trace.claim(name, {})

    taken = trace.channels[node.input[0]]
    feed = {node.input[0]: taken.value.astype(np.float32)} | {n: np.asarray(v) for n, v in fixed.items()}
    return _evaluated(trace, node, taken, feed)


def pool(trace: Trace, node: onnx.NodeProto) -> Found:
    """A pooling over space."""
    taken = trace.channels[node.input[0]]
    if taken.axis != 1 or len(node.output) > 1:
        return None
    pads = any(attribute(node, "pads", [0])) or attribute(node, "auto_pad", b"").startswith(b"SAME")
    counts_zeros = attribute(node, "count_include_pad", 0) and pads
    return taken.where(taken.value == 0) if counts_zeros else taken


def binary(trace: Trace, node: onnx.NodeProto) -> Found:
    """Two activations that share their channels, or one and a constant."""
    if len(node.input) != 2:
        return None
    tracked = [name for name in node.input if name in trace.channels]
    if len(tracked) == 2:
        return _of_two(trace, node)

    other = next(name for name in node.input if name not in trace.channels)
    rank = trace.rank(tracked[0])
    if rank is None:
        return None
    constant = trace.constant(other)
    return (
        _with_activation(trace, node, tracked[0], other, rank)
        if constant is None
        else _with_constant(trace, node, tracked[0], (other, constant), rank)
    )


def _of_two(trace: Trace, node: onnx.NodeProto) -> Found:
    left, right = (trace.channels[name] for name in node.input)
    ranks = {trace.rank(name) for name in node.input}
    if len(ranks) != 1 or None in ranks or left.axis != right.axis or len(left.slots) != len(right.slots):
        return None
    trace.groups.join(left.slots, right.slots)

    both = Channels(left.axis, left.slots, left.known & right.known, left.value)
    values = dict(zip(node.input, (left.value, right.value), strict=False))
    found = _evaluated(trace, node, both, {name: v.astype(np.float32) for name, v in values.items()})
    return _with_zeros(node, found, [left, right])


def _with_constant(
    trace: Trace, node: onnx.NodeProto, name: str, other: tuple[str, Array], rank: int
) -> Found:
    taken, (constant_name, constant) = trace.channels[name], other
    axis = taken.axis - rank + constant.ndim
    if constant.ndim > rank:
        return None
    wide = axis >= 0 and constant.shape[axis] != 1
    if wide and constant.shape[axis] != len(taken.slots):
        return None

    role = Role.SHIFTS if node.op_type in ("Add", "Sub") else Role.FOLLOWS
    trace.claim(constant_name, {axis: (taken.slots, role)} if wide else {})
    alone = constant.size == (len(taken.slots) if wide else 1)
    if not alone or constant.dtype.kind != "f":
        return _with_zeros(node, taken.unknown(), [taken])

    feed = {
        name: taken.value.astype(np.float32),
        constant_name: np.broadcast_to(constant.reshape(-1), taken.value.shape).astype(np.float32),
    }
    return _with_zeros(node, _evaluated(trace, node, taken, feed), [taken])


def _with_activation(trace: Trace, node: onnx.NodeProto, name: str, other: str, rank: int) -> Found:
    """The other one has no channels that are known; it must be the same for all of these."""
    taken, shape = trace.channels[name], trace.shapes.get(other)
    if shape is None or len(shape) > rank:
        return None
    axis = taken.axis - rank + len(shape)
    if axis >= 0 and shape[axis] != 1:
        return None
    return _with_zeros(node, taken.unknown(), [taken])


def _with_zeros(node: onnx.NodeProto, found: Channels, factors: list[Channels]) -> Channels:
    """A product with a channel that is zero is zero."""
    if node.op_type != "Mul":
        return found
    zero = np.any([c.known & (c.value == 0) for c in factors], axis=0)
    return Channels(found.axis, found.slots, found.known | zero, np.where(zero, 0.0, found.value))


def _evaluated(trace: Trace, node: onnx.NodeProto, taken: Channels, feed: dict[str, Array]) -> Channels:
    """The operator on the values that are known, in float32 as runtimes compute it."""
    if not taken.known.any():
        return taken

    graph = onnx.helper.make_graph(
        [node],
        "channels",
        [onnx.ValueInfoProto(name=name) for name in feed],
        [onnx.ValueInfoProto(name=node.output[0])],
    )
    alone = onnx.helper.make_model(graph, opset_imports=list(trace.model.graph.opset_import))
    try:
        with np.errstate(all="ignore"):
            found: list[Any] = list(ReferenceEvaluator(alone).run(None, feed))
            value = np.asarray(found[0], np.float64)
    except Exception:  # the evaluator raises whatever its operators raise; nothing is known then
        return taken.unknown()
    if value.shape != taken.value.shape:
        return taken.unknown()
    finite = np.isfinite(value)
    return Channels(taken.axis, taken.slots, taken.known & finite, np.where(finite, value, 0.0))
