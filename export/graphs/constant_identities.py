"""Let nodes read initializers themselves where an Identity stands between."""

import onnx

from modelpress.export.graphs.parts import graphs_of
from modelpress.export.quantized import QuantizedModel


def without_constant_identities(model: QuantizedModel) -> QuantizedModel:
    """The same function without the main graph's `Identity` nodes of initializers.

    Exporters write them where several layers share a bias. Those that make an output of the graph, or what a nested
    graph reads, stay.
    """
    nested = (part for _, part in graphs_of(model.graph) if part is not model.graph.graph)
    kept_names = {name for part in nested for node in part.node for name in node.input}
    kept_names |= {value.name for _, part in graphs_of(model.graph) for value in part.output}
    source: dict[str, str] = {}
    for node in model.graph.graph.node:
        if _is_identity(node) and node.output[0] not in kept_names:
            name = source.get(node.input[0], node.input[0])
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
    return node.op_type == "Identity" and node.domain in ("", "ai.onnx")
