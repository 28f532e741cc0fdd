"""Let nodes read initializers themselves where an Identity stands between."""

import onnx

from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.operators import is_standard
from modelpress.export.quantized import QuantizedModel


def without_constant_identities(model: QuantizedModel) -> QuantizedModel:
    """The same function without the main graph's `Identity` nodes of initializers.

    Exporters write them where several layers share a bias. Those that make an output of the graph, or what a nested
    graph reads, stay.
    """
    index = GraphIndex.of_model(model.graph)
    source: dict[str, str] = {}
    for node in index.nodes:
        if _is_identity(node) and node.output[0] not in index.kept:
            name = source.get(node.input[0], node.input[0])  # through a chain of them
            if name in model.tensors:
                source[node.output[0]] = name

    if not source:
        return model

    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    del graph.graph.node[:]
    for node in model.graph.graph.node:
        if _is_identity(node) and node.output[0] in source:
            continue

        copy = graph.graph.node.add()
        copy.CopyFrom(node)
        for place, name in enumerate(node.input):
            copy.input[place] = source.get(name, name)

    return QuantizedModel(graph, model.tensors)


def _is_identity(node: onnx.NodeProto) -> bool:
    return is_standard(node) and node.op_type == "Identity"
