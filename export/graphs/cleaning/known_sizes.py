"""Sizes that an exporter computes anew at every call, though they are the same for all inputs."""

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.export.graphs.channels.following import shapes_with
from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.initializers import constants
from modelpress.export.graphs.operators import attribute_of, is_standard
from modelpress.export.quantized import QuantizedModel

# batch and size in the place of open axes: what both agree on does not depend on them
_FILLS = ((2, 64), (3, 96))


def known_sizes(model: QuantizedModel) -> dict[str, npt.NDArray[np.int64]]:
    """Values of the nodes that take one entry of a shape, where it is the same for all inputs; by their outputs.

    That is how exporters spell out `chunk`: the number of channels, halved. Entries of open axes are left out.
    """
    index = GraphIndex.of_model(model.graph)
    given = {name: array for name, array in constants(model.graph).items() if array.size == 1}
    asked = [
        (node, shape.input[0])
        for node in index.nodes
        if node.op_type == "Gather" and is_standard(node) and not attribute_of(node, "axis", 0)
        if (shape := index.producer(node.input[0])) is not None and _is_whole_shape(shape)
        if node.input[1] in given
    ]
    if not asked:
        return {}

    found = {}
    first, second = (shapes_with(model, batch=batch, size=size) for batch, size in _FILLS)
    for node, activation in asked:
        entry, shape_of = given[node.input[1]], first.get(activation, ())
        place = int(entry.reshape(-1)[0])
        inside = -len(shape_of) <= place < len(shape_of)
        if inside and activation in second and shape_of[place] == second[activation][place]:
            found[node.output[0]] = np.full(entry.shape, shape_of[place], np.int64)
    return found


def _is_whole_shape(node: onnx.NodeProto) -> bool:
    return node.op_type == "Shape" and is_standard(node) and not node.attribute
