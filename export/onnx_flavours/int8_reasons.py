"""Why nodes stay in float, in sentences for whoever asked for integers."""

from collections import defaultdict
from dataclasses import replace

import onnx
from onnx import TensorProto

from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.operators import is_standard
from modelpress.export.lazy_tensors import spec_of
from modelpress.export.onnx_flavours.int8_regions import ARITHMETIC, MOVING, Regions, has_integer_form
from modelpress.export.quantized import QuantizedModel


def explained(regions: Regions, model: QuantizedModel) -> Regions:
    """The regions of a model with `notes` and `obstacle` filled in; nodes of one kind and reason share a note."""
    index = GraphIndex.of_model(model.graph)
    read_as_float = index.kept.intersection(regions.quantized)
    in_integers = regions.places

    notes: list[str] = []
    in_float: defaultdict[tuple[str, str], list[onnx.NodeProto]] = defaultdict(list)
    for place, node in enumerate(index.nodes):
        if place not in in_integers and node.op_type != "Constant":
            in_float[_kind(node), _reason(node, regions, index, model)].append(node)
        elif place in regions.weighted and regions.tails[place] in read_as_float:
            notes.append(f"{regions.tails[place]}: is read as float, but carries eight bits")

    # the first layer with a weight that stays behind says most about a model that has no integer layer at all
    obstacle = ""
    for (kind, reason), nodes in in_float.items():
        title = f"{kind} {_name(nodes[0])} stays"
        if len(nodes) > 1:
            title = f"{len(nodes)} {kind} ({_name(nodes[0])} and others) stay"

        notes.append(f"{title} in float: {reason}")
        if has_integer_form(nodes[0]):
            obstacle = obstacle or notes[-1]

    return replace(regions, notes=notes, obstacle=obstacle)


def _reason(node: onnx.NodeProto, regions: Regions, index: GraphIndex, model: QuantizedModel) -> str:
    if node.op_type == "BatchNormalization":
        return "it could not be folded into a convolution; this costs speed"
    if has_integer_form(node):
        return _weight_reason(node, model)
    if not is_standard(node) or node.op_type not in ARITHMETIC | MOVING:
        return "there is no integer kernel for it here"

    if not any(regions.on_integers(place) for place in index.consumers.get(node.output[0], ())):
        return "no integer node reads what it makes"

    return "not all that it reads is integer, or constant"


def _weight_reason(node: onnx.NodeProto, model: QuantizedModel) -> str:
    name = node.input[1] if len(node.input) > 1 else ""
    if name not in model.tensors or node.input[0] in model.tensors:
        return "not its second input, but another one or none, is a constant weight"
    if spec_of(model.tensors, name).onnx_type != TensorProto.FLOAT:
        return "its weight is not float32"
    return "its weight is shared along another axis, or factors, a transposition or the bias are unusual"


def _kind(node: onnx.NodeProto) -> str:
    return node.op_type if is_standard(node) else f"{node.domain}:{node.op_type}"


def _name(node: onnx.NodeProto) -> str:
    return node.name or ", ".join(node.output)
