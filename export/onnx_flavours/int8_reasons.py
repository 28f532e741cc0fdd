"""Why nodes stay in float, in sentences for whoever asked for integers."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import onnx
from onnx import TensorProto

from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.operators import is_standard
from modelpress.export.lazy_tensors import spec_of
from modelpress.export.onnx_flavours.int8_regions import ARITHMETIC, MOVING, Regions, has_integer_form
from modelpress.export.quantized import QuantizedModel


@dataclass(frozen=True)
class FloatIsland:
    """Nodes of one operator that stay in float for one reason.

    Attributes:
        operator: With its domain, where that is not ONNX's own.
        first: Name of the first of them.
        count: How many there are.
        reason: In words.
        has_integer_form: Whether the operator has a weight, and integer kernels.
    """

    operator: str
    first: str
    count: int
    reason: str
    has_integer_form: bool

    def __str__(self) -> str:
        if self.count > 1:
            return f"{self.count} {self.operator} ({self.first} and others) stay in float: {self.reason}"
        return f"{self.operator} {self.first} stays in float: {self.reason}"


def explained(regions: Regions, model: QuantizedModel) -> Regions:
    """The regions of a model with `notes` and `obstacle` filled in; nodes of one kind and reason share a note."""
    index = GraphIndex.of_model(model.graph)
    read_as_float = index.kept.intersection(regions.quantized)
    notes = [
        f"{regions.tails[place]}: is read as float, but carries eight bits"
        for place in sorted(regions.weighted)
        if regions.tails[place] in read_as_float
    ]

    # the first layer with a weight that stays behind says most about a model that has no integer layer at all
    islands = list(islands_of(regions, model))
    obstacle = next((str(island) for island in islands if island.has_integer_form), "")
    return replace(regions, notes=[*notes, *map(str, islands)], obstacle=obstacle)


def islands_of(regions: Regions, model: QuantizedModel) -> Iterator[FloatIsland]:
    """What stays in float, operator by operator and reason by reason; what computes with shapes is no part of it."""
    index = GraphIndex.of_model(model.graph)
    elsewhere = regions.places | index.of_shapes(model.tensors)
    in_float: defaultdict[tuple[str, str], list[onnx.NodeProto]] = defaultdict(list)
    for place, node in enumerate(index.nodes):
        if place not in elsewhere and node.op_type != "Constant":
            excluded = place in regions.excluded
            reason = "it is excluded" if excluded else _reason(node, regions, index, model)
            in_float[_kind(node), reason].append(node)

    for (kind, reason), nodes in in_float.items():
        yield FloatIsland(kind, _name(nodes[0]), len(nodes), reason, has_integer_form(nodes[0]))


def _reason(node: onnx.NodeProto, regions: Regions, index: GraphIndex, model: QuantizedModel) -> str:
    if node.op_type == "BatchNormalization":
        return "it could not be folded into a convolution; this costs speed"
    if has_integer_form(node):
        return _weight_reason(node, index, model)
    if not is_standard(node) or node.op_type not in ARITHMETIC | MOVING:
        return "there is no integer kernel for it here"

    if not any(regions.on_integers(place) for place in index.consumers.get(node.output[0], ())):
        return "no integer node reads what it makes"

    return "not all that it reads is integer, or constant"


def _weight_reason(node: onnx.NodeProto, index: GraphIndex, model: QuantizedModel) -> str:
    name = node.input[1] if len(node.input) > 1 else ""
    maker = index.producer(name)
    if maker is not None and all(source in model.tensors for source in maker.input if source):
        return f"its weight is made by another node, {maker.op_type}, as of one that layers share"
    if not any(source in model.tensors for source in node.input):
        return "both its inputs are activations; there are integer kernels for constant weights"
    if name not in model.tensors or node.input[0] in model.tensors:
        return "not its second input, but another one or none, is a constant weight"
    if spec_of(model.tensors, name).onnx_type != TensorProto.FLOAT:
        return "its weight is not float32"
    return "its weight is shared along another axis, or factors, a transposition or the bias are unusual"


def _kind(node: onnx.NodeProto) -> str:
    return node.op_type if is_standard(node) else f"{node.domain}:{node.op_type}"


def _name(node: onnx.NodeProto) -> str:
    return node.name or ", ".join(node.output)
