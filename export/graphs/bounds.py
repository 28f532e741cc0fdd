"""How many nodes a graph comes to, counted before anything walks it.

A few functions of the model that call each other twice are a few hundred bytes, and 2**40 nodes once a checker or a
runtime writes them out.
"""

from collections.abc import Iterable, Iterator, Mapping

import onnx

from modelpress.export.errors import ModelError
from modelpress.export.graphs.conventions import MAX_NODES
from modelpress.export.tensor_spec import MAX_TENSORS

MAX_CALLS_DEEP = 64  # functions inside each other, which checkers and runtimes follow by recursion

_Key = tuple[str, str, str]  # a function: domain, name, overload


def check_bounds(model: onnx.ModelProto) -> None:
    """Refuse a graph of too many tensors or nodes, those of nested graphs and of each call of a function counted.

    Raises:
        ModelError: It does, or its functions call each other in a circle or too deeply, or two are called the same.

    Example:
        >>> nodes = [onnx.NodeProto(op_type="Relu")] * (MAX_NODES + 1)
        >>> check_bounds(onnx.ModelProto(graph=onnx.GraphProto(node=nodes)))
        Traceback (most recent call last):
        modelpress.export.errors.ModelError: the graph has more than 131,072 nodes
    """
    if len(model.graph.initializer) > MAX_TENSORS:
        raise ModelError(f"the graph has more than {MAX_TENSORS:,} tensors")

    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    if len(functions) < len(model.functions):
        raise ModelError("two functions of the model have the same domain, name and overload")

    written_out: dict[_Key, int] = {}
    deepest: dict[_Key, int] = {}  # functions inside each other, this one included
    for key in functions:
        _count_function(key, functions, written_out, deepest)

    graphs = [
        model.graph,
        *(part for info in model.training_info for part in (info.initialization, info.algorithm)),
    ]
    total = 0
    for graph in graphs:
        total += _count(graph.node, functions, written_out, most=MAX_NODES - total)
    if total > MAX_NODES:
        detail = " once its functions are written out" if functions else ""
        raise ModelError(f"the graph has more than {MAX_NODES:,} nodes{detail}")


def _count_function(
    start: _Key,
    functions: Mapping[_Key, onnx.FunctionProto],
    written_out: dict[_Key, int],
    deepest: dict[_Key, int],
) -> None:
    """Fill in how many nodes a function comes to, and every function that it calls, callees first.

    Raises:
        ModelError: Calls go in a circle, or too deep.
    """
    open_calls: list[tuple[_Key, Iterator[_Key]]] = []
    too_deep = ModelError(f"functions of the model call each other more than {MAX_CALLS_DEEP} deep")

    def enter(key: _Key) -> None:
        if any(key == caller for caller, _ in open_calls):
            raise ModelError(f"function {key[1]!r} of the model calls itself")
        if len(open_calls) >= MAX_CALLS_DEEP:
            raise too_deep
        open_calls.append((key, _callees(functions[key].node, functions)))

    if start not in written_out:
        enter(start)

    while open_calls:
        key, callees = open_calls[-1]
        pending = next((callee for callee in callees if callee not in written_out), None)
        if pending is not None:
            enter(pending)
            continue
        deepest[key] = 1 + max(
            (deepest[callee] for callee in _callees(functions[key].node, functions)), default=0
        )
        if deepest[key] > MAX_CALLS_DEEP:
            raise too_deep
        written_out[key] = _count(functions[key].node, functions, written_out, most=MAX_NODES)
        open_calls.pop()


def _callees(nodes: Iterable[onnx.NodeProto], functions: Mapping[_Key, object]) -> Iterator[_Key]:
    return (key for node in _nodes(nodes) if (key := _key(node)) in functions)


def _count(
    nodes: Iterable[onnx.NodeProto],
    functions: Mapping[_Key, object],
    written_out: Mapping[_Key, int],
    *,
    most: int,
) -> int:
    """How many nodes these come to; some number above `most` where there are more."""
    total = 0
    for node in _nodes(nodes):
        total += 1 + (written_out[key] if functions and (key := _key(node)) in functions else 0)
        if total > most:
            break
    return total


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """These nodes and those of the graphs inside them."""
    pending = [iter(nodes)]
    while pending:
        node = next(pending[-1], None)
        if node is None:
            pending.pop()
            continue
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                pending.append(iter(attribute.g.node))
            pending += (iter(graph.node) for graph in attribute.graphs)


def _key(node: onnx.NodeProto) -> _Key:
    return node.domain, node.op_type, node.overload
