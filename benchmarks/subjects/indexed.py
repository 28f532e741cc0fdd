"""How many rows the tables have that integer inputs index: what lies outside them is refused, or worse, answered."""

from collections.abc import Iterable

import onnx

from modelpress.export.graphs.activations import inferred_shapes
from modelpress.export.graphs.index import GraphIndex

_INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
# operators that hand on what they get first, entry by entry
_HAND_ON = frozenset(
    {
        "Cast",
        "Clip",
        "Concat",
        "Expand",
        "Flatten",
        "Identity",
        "Reshape",
        "Slice",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
_EMBEDDINGS = {0: 2, 1: 4}  # of EmbedLayerNormalization: input of indices -> input of its table


def rows_indexed(model: onnx.ModelProto) -> dict[str, int]:
    """For each integer input that indexes tables, the number of rows of the smallest of them.

    Example:
        >>> from onnx import parser
        >>> text = '<ir_version: 8, opset_import: ["": 17]> g (int64[N] i, float[7, 2] t) => (float[N, 2] y) '
        >>> rows_indexed(parser.parse_model(text + "{ j = Identity(i) y = Gather(t, j) }"))
        {'i': 7}
    """
    index = GraphIndex(model.graph)
    names = [
        value.name
        for value in model.graph.input
        if value.type.tensor_type.elem_type in _INTEGERS and value.name not in index.stored
    ]
    tables = {name: _tables(index, name) for name in names}
    if not any(tables.values()):
        return {}

    lengths = _lengths(model, index, {table for found in tables.values() for table in found})
    found = {name: [lengths[table] for table in tables[name] if table in lengths] for name in names}
    return {name: min(rows) for name, rows in found.items() if rows}


def _tables(index: GraphIndex, start: str) -> set[tuple[str, int]]:
    """Tables, and which of their axes is indexed, by an input or what is made of it entry by entry."""
    found: set[tuple[str, int]] = set()
    pending, seen = [start], {start}
    while pending:
        name = pending.pop()
        for node in _all_users(index.users(name), name):
            if node.op_type in ("Gather", "GatherElements") and list(node.input[1:2]) == [name]:
                found.add((node.input[0], _axis(node)))
            for position, table in _EMBEDDINGS.items() if node.op_type == "EmbedLayerNormalization" else ():
                if len(node.input) > table and node.input[position] == name:
                    found.add((node.input[table], 0))
            if node.op_type in _HAND_ON and name in node.input[: None if node.op_type == "Concat" else 1]:
                fresh = set(node.output) - seen
                seen |= fresh
                pending += fresh
    return found


def _all_users(nodes: Iterable[onnx.NodeProto], name: str) -> Iterable[onnx.NodeProto]:
    """Nodes that use a tensor, those in nested graphs in the place of the nodes around them."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        yield node
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                pending += [inner for inner in graph.node if name in inner.input or len(inner.attribute)]


def _axis(node: onnx.NodeProto) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "axis"), 0)


def _lengths(
    model: onnx.ModelProto, index: GraphIndex, tables: set[tuple[str, int]]
) -> dict[tuple[str, int], int]:
    """Of those axes whose length is known."""
    shapes = {name: tuple(index.stored[name].dims) for name, _ in tables if name in index.stored}
    if any(name not in shapes for name, _ in tables):  # computed: of codes, for one
        shapes |= {name: shape for name, (shape, _) in inferred_shapes(model, {}).items()}
    return {
        (name, axis): shapes[name][axis]
        for name, axis in tables
        if name in shapes and -len(shapes[name]) <= axis < len(shapes[name])
    }
