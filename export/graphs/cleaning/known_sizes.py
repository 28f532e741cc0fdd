"""Sizes that an exporter computes anew at every call, though they are the same for all inputs."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from modelpress.export.graphs.activations import Shape
from modelpress.export.graphs.channels.following import shapes_with
from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.initializers import constants
from modelpress.export.graphs.operators import attribute_of, is_standard
from modelpress.export.quantized import QuantizedModel

_FILLS = (
    (2, 64),
    (3, 96),
)  # batch and size in the place of open axes: what both agree on does not depend on them


def with_known_sizes(model: QuantizedModel) -> QuantizedModel:
    """The same function with a constant where one entry of a shape is taken that is the same for all inputs.

    That is how exporters spell out `chunk`: the number of channels, halved. Entries of open axes stay computed.

    Args:
        model: It is left as it is.
    """
    index = GraphIndex.of_model(model.graph)
    given = {name: array for name, array in constants(model.graph).items() if array.size == 1}
    asked = [node for node in index.nodes if _takes_an_entry(node, index, given)]
    if not asked:
        return model

    first, second = (shapes_with(model, batch=batch, size=size) for batch, size in _FILLS)
    known = {
        node.output[0]: np.full(given[node.input[1]].shape, size, np.int64)
        for node in asked
        if (size := _entry(node, index, given, first)) is not None
        and size == _entry(node, index, given, second)
    }
    return _with(model, index, known) if known else model


def _takes_an_entry(node: onnx.NodeProto, index: GraphIndex, given: Mapping[str, np.ndarray]) -> bool:
    made_by = index.producer(node.input[0]) if node.op_type == "Gather" else None
    return (
        made_by is not None
        and is_standard(node)
        and is_standard(made_by)
        and made_by.op_type == "Shape"
        and not made_by.attribute  # a part of the shape
        and node.input[1] in given
        and not attribute_of(node, "axis", 0)
    )


def _entry(
    node: onnx.NodeProto, index: GraphIndex, given: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]
) -> int | None:
    made_by = index.producer(node.input[0])
    shape = None if made_by is None else shapes.get(made_by.input[0])
    place = int(given[node.input[1]].reshape(-1)[0])
    return None if shape is None or not -len(shape) <= place < len(shape) else shape[place]


def _with(model: QuantizedModel, index: GraphIndex, known: Mapping[str, np.ndarray]) -> QuantizedModel:
    """With these values in the place of the nodes that make them, and without shapes that nothing reads then."""
    nodes = [_constant(node, known) or node for node in index.nodes]
    read = {name for node in nodes for name in node.input} | index.kept
    idle = {id(node) for node in nodes if node.op_type == "Shape" and not read & set(node.output)}

    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    del graph.graph.node[:]
    graph.graph.node.extend(node for node in nodes if id(node) not in idle)
    return QuantizedModel(graph, model.tensors)


def _constant(node: onnx.NodeProto, known: Mapping[str, np.ndarray]) -> onnx.NodeProto | None:
    name = next(iter(node.output), "")
    if name not in known:
        return None
    return onnx.helper.make_node("Constant", [], [name], value=numpy_helper.from_array(known[name]))
