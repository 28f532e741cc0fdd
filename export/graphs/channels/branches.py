"""Residual branches: which a network can do without altogether, and the graph without those that add nothing.

A branch is what lies between a layer and the addition that joins its outcome to the rest. Without the channels inside
it computes a constant, and with what is added to them at zero as well it adds nothing.

Source: Huang et al. 2016, "Deep networks with stochastic depth", arXiv:1603.09382: residual networks compute without
some of their branches; Veit et al. 2016, arXiv:1605.06431.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx

from modelpress.export.graphs.channels.elementwise import POOLS, UNARY
from modelpress.export.graphs.channels.trace import Role, Trace
from modelpress.export.graphs.index import GraphIndex, reads_of
from modelpress.export.graphs.operators import is_standard

_KEEP_CONSTANTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization"}) | UNARY | POOLS


@dataclass(frozen=True)
class Branch:
    """A residual branch that may go.

    Attributes:
        groups: Of the channels inside; without all of them the branch is a constant.
        shifts: Tensors that make this constant: biases, factors and biases of normalisations behind those channels.
            Where they are zero, the branch adds nothing.
    """

    groups: frozenset[int]
    shifts: tuple[str, ...]


def branch_of(trace: Trace, groups: Collection[int]) -> Branch | None:
    """The branch whose channels these are; None where more than an addition hangs on them.

    Args:
        trace: A graph that was followed.
        groups: Numbers of groups of channels, all that a layer makes.
    """
    inside = set(groups)
    constant = {
        name
        for name, channels in trace.channels.items()
        if inside.issuperset(trace.groups.roots(channels.slots).tolist())
    }
    ends: list[str] = []
    for node in trace.index.nodes:
        read = [name for name in reads_of(node) if name in constant]
        if not read or constant.issuperset(node.output):
            continue

        others = [name for name in node.input if name in trace.channels and name not in constant]
        if node.op_type == "Add" and is_standard(node) and others:
            continue  # here the branch ends: the other summand comes through
        if others or node.op_type not in (*_KEEP_CONSTANTS, "Add", "Mul") or not is_standard(node):
            return None
        constant.update(node.output)
        ends += [name for name in node.input if name not in constant]

    if constant & set(trace.index.kept):
        return None
    shifting = {claim.tensor for claim in trace.claims if claim.role is Role.SHIFTS}
    return Branch(frozenset(groups), tuple(name for name in ends if name in shifting))


def without_idle_branches(trace: Trace) -> int:
    """Take out additions of channels that are all zero, in the graph of the trace, and what nothing reads then.

    Tensors that are not read any more are left to the caller.

    Returns:
        How many were taken out.
    """
    outputs = {value.name for value in trace.model.graph.graph.output}
    before = _depended_on(trace.index)
    instead: dict[str, str] = {}
    taken = 0
    for node in trace.index.nodes:
        for place, name in enumerate(node.input):
            node.input[place] = instead.get(name, name)
        if not is_standard(node) or len(node.output) != 1 or node.output[0] in outputs:
            continue

        if node.op_type == "Add" and (summand := _summand(trace, node)) is not None:
            instead[node.output[0]] = summand
            taken += 1
        elif taken and node.op_type == "Relu" and _of_relu(trace, node):
            instead[node.output[0]] = node.input[0]  # which is not negative already

    if taken:
        unread = before - _depended_on(GraphIndex.of_model(trace.model.graph))
        graph = trace.model.graph.graph
        kept = onnx.GraphProto(node=[node for node in graph.node if not unread & set(node.output)])
        del graph.node[:]
        graph.node.extend(kept.node)
    return taken


def _summand(trace: Trace, node: onnx.NodeProto) -> str | None:
    """Of an addition of nothing, what nothing is added to, if it has the shape of the sum."""
    shape = trace.shapes.get(node.output[0])
    for zero, other in (tuple(node.input), tuple(reversed(node.input))):
        channels = trace.channels.get(zero)
        nothing = channels is not None and bool(np.all(channels.known & (channels.value == 0)))
        if nothing and other in trace.channels and shape is not None and trace.shapes.get(other) == shape:
            return other
    return None


def _of_relu(trace: Trace, node: onnx.NodeProto) -> bool:
    maker = trace.index.producer(node.input[0])
    return maker is not None and maker.op_type == "Relu" and is_standard(maker)


def _depended_on(index: GraphIndex) -> set[str]:
    """Everything that the outputs depend on; what they never did is not ours to drop."""
    return {name for node in index.by_dataflow() for name in node.output}
