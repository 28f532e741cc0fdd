"""What exporters write beside a graph for those who debug them: stack traces, modules, paths of somebody's machine."""

import onnx

from modelpress.export.graphs.parts import graphs_of


def drop_exporter_notes(model: onnx.ModelProto) -> None:
    """Remove, in place, metadata and documentation of nodes and values; nothing is computed from them.

    What is said of the model as a whole stays.

    Example:
        >>> from onnx import parser
        >>> model = parser.parse_model('<ir_version: 8, opset_import: ["": 17]> g (float[N] x) => (float[N] y) '
        ...                            '{ y = Relu(x) }')
        >>> entry = model.graph.node[0].metadata_props.add(key="stack_trace", value="/home/me/train.py, line 7")
        >>> drop_exporter_notes(model)
        >>> len(model.graph.node[0].metadata_props)
        0
    """
    nodes = [node for part in model.functions for node in part.node]
    for _, part in graphs_of(model):
        nodes += part.node
        del part.metadata_props[:]
        for value in (*part.input, *part.output, *part.value_info):
            value.ClearField("doc_string")
            del value.metadata_props[:]

    for node in nodes:
        node.ClearField("doc_string")
        del node.metadata_props[:]
