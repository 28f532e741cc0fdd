"""Small constants computed once: what exporters spell out as nodes, such as the widths of a padding."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from modelpress.export.graphs.index import GraphIndex, reads_of
from modelpress.export.graphs.operators import is_standard
from modelpress.export.quantized import QuantizedModel, QuantizedTensor

Array = npt.NDArray[np.generic]
MAX_ELEMENTS = 1024  # larger results stay computed where they are: a folded one would be stored
_NEVER = ("RandomNormal", "RandomUniform", "If", "Loop", "Scan")  # not the same each time, or not small


def with_constants_computed(
    model: QuantizedModel, *, sizes: Mapping[str, Array] | None = None
) -> QuantizedModel:
    """The same function with nodes of the main graph that compute small constants replaced by these, equal ones once.

    The nodes are computed by onnx's reference evaluator; one that it cannot compute stays. Only integers and what
    `Constant` nodes hold are computed with: floating-point tensors of the model are weights, whatever their size.

    Args:
        model: It is left as it is.
        sizes: What is known of nodes that the evaluator cannot compute, by output; see `known_sizes`.
    """
    index, sizes = GraphIndex.of_model(model.graph), sizes or {}
    known = _small_integers(model)
    made: dict[str, Array] = {}
    kept: list[onnx.NodeProto] = []
    for node in index.nodes:
        found = None
        if not index.kept & set(node.output):
            found = {name: sizes[name] for name in node.output if name in sizes}
            found = found or _computed(node, known, model.graph)
        if found is None:
            kept.append(node)
        else:
            known |= found
            made |= found
    if not made:
        return model
    # shapes of which every entry has become a constant go as well
    read = index.kept.union(*map(reads_of, kept))
    left = [n for n in kept if n.op_type != "Shape" or n.output[0] in read or not index.reads[n.output[0]]]
    return _rebuilt(model, left, made)


def _small_integers(model: QuantizedModel) -> dict[str, Array]:
    return {
        name: tensor
        for name, tensor in model.tensors.items()
        if not isinstance(tensor, QuantizedTensor)
        and tensor.dtype.kind in "iub"
        and tensor.size <= MAX_ELEMENTS
    }


def _computed(
    node: onnx.NodeProto, known: Mapping[str, Array], model: onnx.ModelProto
) -> dict[str, Array] | None:
    """What the node gives, by name of its outputs; None if it has to stay."""
    if not is_standard(node) or node.op_type in _NEVER or not all(node.output):
        return None
    if node.op_type == "Constant":
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        small = value is not None and int(np.prod(list(value.dims))) <= MAX_ELEMENTS
        return {node.output[0]: numpy_helper.to_array(value)} if small and value is not None else None
    inputs = [name for name in node.input if name]
    if not inputs or not all(name in known for name in inputs):
        return None
    return _evaluated(node, {name: known[name] for name in inputs}, model)


def _evaluated(
    node: onnx.NodeProto, inputs: Mapping[str, Array], model: onnx.ModelProto
) -> dict[str, Array] | None:
    graph = onnx.helper.make_graph(
        [node],
        "constants",
        [onnx.ValueInfoProto(name=name) for name in inputs],
        [onnx.ValueInfoProto(name=name) for name in node.output],
    )
    alone = onnx.helper.make_model(graph, opset_imports=list(model.opset_import))
    try:
        found = ReferenceEvaluator(alone).run(None, dict(inputs))
    except Exception:  # the evaluator raises whatever its operators raise; a runtime will compute the node
        return None
    arrays = [np.asarray(value) for value in found]
    if not all(array.size <= MAX_ELEMENTS and array.dtype.kind in "iubf" for array in arrays):
        return None
    return dict(zip(node.output, arrays, strict=True))


def _rebuilt(model: QuantizedModel, kept: list[onnx.NodeProto], made: Mapping[str, Array]) -> QuantizedModel:
    """The graph of the kept nodes, with a `Constant` node in front for every different value that they read."""
    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    del graph.graph.node[:]
    name_of: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    constants, copies = [], []
    for node in kept:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for place, name in enumerate(node.input):
            if name in made:
                array = np.asarray(made[name])
                key = (array.dtype.str, array.shape, array.tobytes())
                if key not in name_of:
                    name_of[key] = name
                    value = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape))
                    constants.append(onnx.helper.make_node("Constant", [], [name], value=value))
                copy.input[place] = name_of[key]
        copies.append(copy)
    graph.graph.node.extend([*constants, *copies])

    # what nothing reads any more goes; what nothing read before is not ours to drop
    left, before = GraphIndex.of_model(graph).reads, GraphIndex.of_model(model.graph).reads
    tensors = {name: t for name, t in model.tensors.items() if left[name] or not before[name]}
    return QuantizedModel(graph, tensors)
