"""Layers with weights: which channels they take and make, and what they make of constant ones."""

import math

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.export.graphs.channels.slots import Slots
from modelpress.export.graphs.channels.trace import (
    Array,
    Channels,
    Role,
    Sink,
    Trace,
    attribute,
    set_attribute,
)
from modelpress.export.graphs.operators import attribute_of

Found = Channels | None
_EPSILON = 1e-5  # of a normalisation that names none


def conv(trace: Trace, number: int, node: onnx.NodeProto) -> Found:
    """A convolution; the groups of a grouped one stay or go as a whole."""
    weight = trace.constant(node.input[1])
    taken = trace.channels.get(node.input[0])
    if weight is None or (taken is not None and taken.axis != 1):
        return None

    n_groups = attribute_of(node, "group", 1)
    made = trace.made(1, weight.shape[0])
    if not _with_bias(trace, node, 2, made.slots):
        return None
    bias = _bias(trace, node, 2, len(made.slots))
    columns, touched = _over_space(weight)
    anywhere = _unpadded(node)
    if n_groups > 1:
        return _grouped(trace, node, taken, made, (columns, touched, bias, anywhere))

    if taken is not None and len(taken.slots) != weight.shape[1]:
        return None
    axes = {0: (made.slots, Role.MAKES)}
    if taken is not None:
        axes[1] = (taken.slots, Role.TAKES)
        trace.sinks.append(Sink(number, taken, made.slots, columns, touched, anywhere))
    trace.claim(node.input[1], axes)
    return _constants(made, taken, columns, touched, bias, anywhere=anywhere)


def conv_transpose(trace: Trace, number: int, node: onnx.NodeProto) -> Found:
    """A transposed convolution without groups: at its borders constants do not stay constant."""
    weight = trace.constant(node.input[1])
    taken = trace.channels.get(node.input[0])
    if weight is None or taken is None or taken.axis != 1 or attribute_of(node, "group", 1) != 1:
        return None
    if len(taken.slots) != weight.shape[0]:
        return None

    made = trace.made(1, weight.shape[1])
    if not _with_bias(trace, node, 2, made.slots):
        return None
    columns, touched = _over_space(np.swapaxes(weight, 0, 1))
    trace.claim(node.input[1], {1: (made.slots, Role.MAKES), 0: (taken.slots, Role.TAKES)})
    trace.sinks.append(Sink(number, taken, made.slots, columns, touched, anywhere=False))
    bias = _bias(trace, node, 2, len(made.slots))
    return _constants(made, taken, columns, touched, bias, anywhere=False)


def gemm(trace: Trace, number: int, node: onnx.NodeProto) -> Found:
    """A linear layer of matrices."""
    plain = all(attribute(node, name, 1.0) == 1.0 for name in ("alpha", "beta"))
    if not plain or attribute_of(node, "transA", 0):
        return None
    return _linear(trace, number, node, axis=1, transposed=bool(attribute_of(node, "transB", 0)))


def matmul(trace: Trace, number: int, node: onnx.NodeProto) -> Found:
    """A linear layer over the last axis."""
    rank = trace.rank(node.input[0])
    return None if rank is None or rank < 2 else _linear(trace, number, node, axis=rank - 1, transposed=False)


def batch_norm(trace: Trace, number: int, node: onnx.NodeProto) -> Found:
    """A normalisation by constants."""
    taken = trace.channels.get(node.input[0])
    values = [trace.constant(name) for name in node.input[1:5]]
    if taken is None or taken.axis != 1 or attribute_of(node, "training_mode", 0) or len(node.output) > 1:
        return None
    arrays = [np.asarray(value, np.float64) for value in values if value is not None]
    if len(arrays) < 4 or any(array.shape != taken.slots.shape for array in arrays):
        return None

    roles = (Role.SHIFTS, Role.SHIFTS, Role.FOLLOWS, Role.FOLLOWS)
    for name, role in zip(node.input[1:5], roles, strict=True):
        trace.claim(name, {0: (taken.slots, role)})
    gamma, beta, mean, variance = arrays
    factor = gamma / np.sqrt(variance + attribute(node, "epsilon", _EPSILON))
    known = taken.known | (gamma == 0)
    value = beta + factor * (np.where(taken.known, taken.value, mean) - mean)
    return Channels(1, taken.slots, known, value)


def _linear(trace: Trace, number: int, node: onnx.NodeProto, *, axis: int, transposed: bool) -> Found:
    weight = trace.constant(node.input[1])
    taken = trace.channels.get(node.input[0])
    if weight is None or weight.ndim != 2 or (taken is not None and taken.axis != axis):
        return None
    rows = weight if transposed else weight.T
    if taken is not None and len(taken.slots) != rows.shape[1]:
        return None

    made = trace.made(axis, len(rows))
    if not _with_bias(trace, node, 2, made.slots):
        return None
    bias = _bias(trace, node, 2, len(rows))
    columns, touched = rows.astype(np.float64), rows != 0
    axes = {0 if transposed else 1: (made.slots, Role.MAKES)}
    if taken is not None:
        axes[1 if transposed else 0] = (taken.slots, Role.TAKES)
        trace.sinks.append(Sink(number, taken, made.slots, columns, touched, anywhere=True))
    trace.claim(node.input[1], axes)
    return _constants(made, taken, columns, touched, bias, anywhere=True)


def _grouped(
    trace: Trace,
    node: onnx.NodeProto,
    taken: Found,
    made: Channels,
    sums: tuple[Array, Array, Array, bool],
) -> Found:
    """Every group of a convolution with its inputs and outputs tied together."""
    columns, touched, bias, anywhere = sums
    n_groups = attribute_of(node, "group", 1)
    width = columns.shape[1]
    if taken is None or len(taken.slots) != width * n_groups or len(made.slots) % n_groups:
        return None

    ins, outs = taken.slots.reshape(n_groups, -1), made.slots.reshape(n_groups, -1)
    for k in range(n_groups):
        trace.groups.join_all(np.concatenate([ins[k], outs[k]]))
    trace.claim(node.input[1], {0: (made.slots, Role.MAKES)})
    trace.edits.append(lambda alive: set_attribute(node, "group", int(alive(ins[:, 0]).sum())))

    each = [
        _constants(
            made.take(np.arange(k * outs.shape[1], (k + 1) * outs.shape[1])),
            taken.take(np.arange(k * width, (k + 1) * width)),
            *(part[k * outs.shape[1] : (k + 1) * outs.shape[1]] for part in (columns, touched, bias)),
            anywhere=anywhere,
        )
        for k in range(n_groups)
    ]
    known, value = (np.concatenate([getattr(c, name) for c in each]) for name in ("known", "value"))
    return Channels(1, made.slots, known, value)


def _constants(
    made: Channels, taken: Found, columns: Array, touched: Array, bias: Array, *, anywhere: bool
) -> Channels:
    """The channels that a layer makes, with those known whose inputs all are, or count for nothing."""
    if taken is None:
        return Channels(made.axis, made.slots, ~touched.any(axis=1) & ~np.isnan(bias), bias)

    spoils = ~foldable(taken, anywhere=anywhere)
    known = ~(touched & spoils).any(axis=1)
    value = bias + columns @ np.where(taken.known, taken.value, 0.0)
    return Channels(made.axis, made.slots, known & np.isfinite(value), value)


def foldable(taken: Channels, *, anywhere: bool) -> npt.NDArray[np.bool_]:
    """Which channels a layer could do without if its bias made up for them."""
    return taken.known if anywhere else taken.known & (taken.value == 0)


def _over_space(weight: Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    flat = weight.reshape(*weight.shape[:2], math.prod(weight.shape[2:]))
    return flat.sum(axis=2, dtype=np.float64), (flat != 0).any(axis=2)


def _unpadded(node: onnx.NodeProto) -> bool:
    automatic = attribute(node, "auto_pad", b"NOTSET")
    return automatic in (b"NOTSET", b"VALID") and not any(attribute(node, "pads", [0]))


def _with_bias(trace: Trace, node: onnx.NodeProto, place: int, made: Slots) -> bool:
    """Claim the bias, if there is one; false where it is none of one value for each channel."""
    if len(node.input) <= place or not node.input[place]:
        return True
    bias = trace.constant(node.input[place])
    if bias is None or bias.ndim == 0 or bias.shape[-1] != len(made) or bias.size != len(made):
        return False
    trace.claim(node.input[place], {bias.ndim - 1: (made, Role.SHIFTS)})
    return True


def _bias(trace: Trace, node: onnx.NodeProto, place: int, n: int) -> npt.NDArray[np.float64]:
    if len(node.input) <= place or not node.input[place]:
        return np.zeros(n)
    return np.asarray(trace.constant(node.input[place]), np.float64).reshape(n)
