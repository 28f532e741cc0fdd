"""What an ONNX model consists of, at any depth: its graphs, their names and constants, its opset and metadata."""

from collections.abc import Iterator

import onnx
from onnx import TensorProto

from modelpress.export.errors import ModelError
from modelpress.export.graphs.operators import STANDARD_DOMAINS


def graphs_of(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """The main graph, then every other graph of the model, each with words for messages."""
    yield "the graph", model.graph
    for part in _training_graphs(model):
        yield "a training graph", part
    for owner, attribute in _attributes_of(model):
        for part in _graphs_in(attribute):
            yield f"a graph inside {owner}", part


def names_in(model: onnx.ModelProto) -> set[str]:
    """All names of activations and tensors, those of nested graphs included."""
    names: set[str] = set()
    for _, part in graphs_of(model):
        names.update(value.name for value in (*part.input, *part.output))
        names.update(tensor.name for tensor in part.initializer)
        for node in part.node:
            names.update((*node.input, *node.output))

    return names


def check_self_contained(graph: onnx.ModelProto) -> None:
    """Refuse a graph that holds weights of its own or would read other files, at any depth.

    Raises:
        ModelError: There are initializers, sparse initializers, data outside the file, or text that is no UTF-8.
    """
    for name, part in graphs_of(graph):
        if len(part.initializer) or len(part.sparse_initializer):
            raise ModelError(f"{name} still holds initializers; they belong into the tensors")

    for tensor in _tensors_of(graph):
        if tensor.data_location == TensorProto.EXTERNAL or len(tensor.external_data):
            raise ModelError("a constant lies in another file; a model must be complete in itself")

    for entry in graph.metadata_props:
        if not isinstance(entry.key, str) or not isinstance(entry.value, str):
            raise ModelError("metadata is no UTF-8 text")


def has_external_data(model: onnx.ModelProto) -> bool:
    """Whether any tensor of the model, sparse ones included, lies in another file."""
    stored: list[onnx.TensorProto] = []
    for _, part in graphs_of(model):
        stored += part.initializer
        for sparse in part.sparse_initializer:
            stored += (sparse.values, sparse.indices)
    return any(t.data_location == TensorProto.EXTERNAL for t in (*stored, *_tensors_of(model)))


def constants_of_functions(model: onnx.ModelProto) -> Iterator[tuple[str, int]]:
    """The `Constant` nodes of local functions, which cannot read tensors of the graph: whose, and the bytes."""
    for function in model.functions:
        for node in function.node:
            for attribute in node.attribute if node.op_type == "Constant" else ():
                if attribute.HasField("t"):
                    yield function.name, attribute.t.ByteSize()


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operators that a model uses; 0 where it names none."""
    return next((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), 0)


def metadata(graph: onnx.ModelProto) -> dict[str, str]:
    """The model's ``metadata_props``."""
    return {entry.key: entry.value for entry in graph.metadata_props}


def _tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Tensors in attributes."""
    for _, attribute in _attributes_of(model):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for part in (*sparse, *attribute.sparse_tensors):
            yield from (part.values, part.indices)


def _attributes_of(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.AttributeProto]]:
    """All attributes, of functions, of training graphs and of every nested graph too, with whose they are."""
    pending = [(function.name, value) for function in model.functions for value in function.attribute_proto]
    holders: list[onnx.GraphProto | onnx.FunctionProto] = [*_training_graphs(model), *model.functions]
    for holder in (model.graph, *holders):
        pending += _attributes_in(holder)

    while pending:
        owner, attribute = pending.pop()
        yield owner, attribute
        for part in _graphs_in(attribute):
            pending += _attributes_in(part)


def _training_graphs(model: onnx.ModelProto) -> list[onnx.GraphProto]:
    return [part for info in model.training_info for part in (info.initialization, info.algorithm)]


def _attributes_in(part: onnx.GraphProto | onnx.FunctionProto) -> list[tuple[str, onnx.AttributeProto]]:
    return [(node.op_type, attribute) for node in part.node for attribute in node.attribute]


def _graphs_in(attribute: onnx.AttributeProto) -> Iterator[onnx.GraphProto]:
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs
