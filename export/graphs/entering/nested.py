"""Weights of nested graphs moved to the main graph, where they are tensors like all others."""

from collections import Counter
from collections.abc import Iterator
from itertools import count

import onnx

from modelpress.export.errors import InputError
from modelpress.export.graphs.operators import is_standard
from modelpress.export.graphs.parts import graphs_of
from modelpress.export.graphs.tensor_scan import text
from modelpress.export.tensor_spec import DTYPES, TensorSpec


def initializers_to_constants(where: str, graph: onnx.GraphProto) -> None:
    """Replace the initializers of a nested graph by `Constant` nodes, before all others.

    Raises:
        InputError: One of them is an input as well.
    """
    inputs = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if text(tensor.name) in inputs:
            raise InputError(f"{tensor.name}: is both input and initializer of {where}; remove the input")

    constants = [
        onnx.helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in graph.initializer
    ]
    if constants:
        nodes = [*constants, *graph.node]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(nodes)


def with_lifted_constants(model: onnx.ModelProto, *, larger_than: int) -> onnx.ModelProto:
    """A model whose big tensors of nested graphs are initializers of its main graph; the model itself without any.

    Raises:
        InputError: As for `initializers_to_constants`.
    """
    if all(part is model.graph for _, part in graphs_of(model)):
        return model

    lifted = onnx.ModelProto()
    lifted.CopyFrom(model)
    for where, part in graphs_of(lifted):
        if part is not lifted.graph:
            initializers_to_constants(where, part)

    lifted.graph.initializer.extend(lift_constants(lifted, taken=set(), larger_than=larger_than))
    return lifted


def lift_constants(model: onnx.ModelProto, *, taken: set[str], larger_than: int) -> list[onnx.TensorProto]:
    """Take the big `Constant` nodes out of the bodies of If, Loop and Scan, which read the main graph's tensors too.

    Args:
        model: Changed in place.
        taken: Names of the tensors that the main graph has already.
        larger_than: Constants of no more elements stay.

    Returns:
        What was taken out, under names of its own: two branches may call different tensors alike.
    """
    defined = Counter(taken)
    for _, part in graphs_of(model):
        defined.update(_made_in(part))
        defined.update(value.name for value in part.input)

    lifted = []
    for _, part in graphs_of(model):
        if part is model.graph:
            continue

        outputs = {value.name for value in part.output}
        moved = [node for node in part.node if _is_big(node, larger_than) and node.output[0] not in outputs]
        for node in moved:
            old = node.output[0]
            new = old if defined[old] == 1 else _unused(old, defined)
            tensor = next(a.t for a in node.attribute if a.name == "value")
            lifted.append(_named(tensor, new))
            part.node.remove(node)
            if new != old:
                _rename(part, old, new)

    return lifted


def _is_big(node: onnx.NodeProto, larger_than: int) -> bool:
    if node.op_type != "Constant" or not is_standard(node) or len(node.output) != 1:
        return False
    value = next((a.t for a in node.attribute if a.name == "value"), None)
    if value is None or value.data_type not in DTYPES:
        return False

    spec = TensorSpec(tuple(value.dims), value.data_type)
    return min(spec.shape, default=0) >= 0 and not spec.exceeds_limits() and spec.size > larger_than


def _unused(name: str, defined: Counter[str]) -> str:
    new = next(candidate for k in count(1) if not defined[candidate := f"{name}_{k}"])
    defined[new] += 1
    return new


def _named(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def _made_in(part: onnx.GraphProto) -> Iterator[str]:
    yield from (tensor.name for tensor in part.initializer)
    yield from (name for node in part.node for name in node.output)


def _rename(part: onnx.GraphProto, old: str, new: str) -> None:
    """Let the nodes of a graph, and of those inside it that have no tensor of this name, read another."""
    for node in part.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new

        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                if old not in {*_made_in(inner), *(value.name for value in inner.input)}:
                    _rename(inner, old, new)
