"""Layers whose weights can be rounded at a price: where a weight lies in its operator, and as which matrices."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.operators import Layout, WeightInput, is_standard, weight_inputs
from modelpress.export.lazy_tensors import spec_of
from modelpress.export.quantized import QuantizedModel

Array = npt.NDArray[Any]
PRICED_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16)
MAX_COLUMNS = 8192  # of one matrix: its covariance takes eight times the square in bytes
_TRANSPOSED = "ConvTranspose"


@dataclass(frozen=True)
class Layer:
    """A node with a weight of its own.

    A weight is seen as matrices ``(groups, rows, columns)``: a row makes one channel of the output, the columns are
    what it is multiplied with, and groups share nothing.

    Attributes:
        node: Reads the weight.
        weight: Its name.
        place: Where the operator takes it.
        shape: Of the weight.
        n_groups: Of a convolution.
    """

    node: onnx.NodeProto
    weight: str
    place: WeightInput
    shape: tuple[int, ...]
    n_groups: int = 1

    @property
    def input(self) -> str:
        """The activation that the weight is multiplied with; numbers of rows where the weight is a table."""
        return str(self.node.input[0 if self.place.place else 1])

    @property
    def output(self) -> str:
        """What it makes; of recurrent layers the states at all steps, where they have a name."""
        return str(next(name for name in self.node.output if name))

    @property
    def bias(self) -> str | None:
        """The name of what is added to its output, one value for each row in order."""
        recurrent = self.place.layout is Layout.GATES
        return None if recurrent else self.place.bias_of(self.node)

    @property
    def is_recurrent(self) -> bool:
        """Whether the weight is multiplied with the layer's own states."""
        return self.place.layout is Layout.GATES and self.place.place == 2

    @property
    def is_left(self) -> bool:
        """Whether the weight stands before the activation in a product of matrices."""
        return self.place.layout is Layout.MATRIX and self.place.place == 0

    @property
    def taps(self) -> int:
        """Columns that are one kernel, side by side."""
        is_kernel = self.place.layout is Layout.KERNEL and self.node.op_type != _TRANSPOSED
        return prod(self.shape[2:]) if is_kernel else 1

    @property
    def kernel_width(self) -> int:
        """Of these, in one line."""
        return self.shape[-1] if self.taps > 1 else 1

    @property
    def channel_axis(self) -> int:
        """Which axis of the weight counts the rows' scales."""
        return self.place.channel_axis(self.node, n_axes=len(self.shape))

    @property
    def n_rows(self) -> int:
        """Of all groups together."""
        if self.node.op_type == _TRANSPOSED:
            return prod(self.shape[1:])
        if self.place.layout is Layout.GATES:
            return prod(self.shape[:2])
        return self.shape[0 if self.place.layout is Layout.KERNEL else self.channel_axis]

    @property
    def one_step(self) -> bool:
        """Whether all rows must share a step: where one for each would be too many, or they lie along no axis."""
        layout = self.place.layout
        lies_along = layout is not Layout.GATES or self.shape[0] == 1
        return layout is Layout.TABLE or not lies_along or self.node.op_type == _TRANSPOSED

    def matrices(self, weight: Array) -> Array:
        """The weight as matrices.

        Example:
            >>> node = helper.make_node("Gemm", ["x", "w"], ["y"])
            >>> layer = Layer(node, "w", next(weight_inputs(node)), (2, 3))
            >>> layer.matrices(np.arange(6).reshape(2, 3)).tolist()
            [[[0, 3], [1, 4], [2, 5]]]
        """
        match self.place.layout:
            case Layout.KERNEL if self.node.op_type == _TRANSPOSED:  # (in, out, taps): a matrix for each tap
                return weight.reshape(*self.shape[:2], -1).transpose(2, 1, 0)
            case Layout.KERNEL:
                return weight.reshape(self.n_groups, self.shape[0] // self.n_groups, -1)
            case Layout.GATES:
                return weight
        return (weight.T if self.channel_axis == 1 else weight)[None]

    def weight_of(self, matrices: Array) -> Array:
        """Undo `matrices`."""
        match self.place.layout:
            case Layout.KERNEL if self.node.op_type == _TRANSPOSED:
                return np.ascontiguousarray(matrices.transpose(2, 1, 0).reshape(self.shape))
            case Layout.KERNEL | Layout.GATES:
                return np.ascontiguousarray(matrices.reshape(self.shape))
        return np.ascontiguousarray(matrices[0].T if self.channel_axis == 1 else matrices[0])


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """All attributes of a node by name."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def find_layers(model: QuantizedModel, *, min_elements: int) -> tuple[list[Layer], dict[str, str]]:
    """The layers whose weights can be rounded at a price, in the order of the graph; and why other weights cannot.

    Args:
        model: Its large float tensors are looked at.
        min_elements: Smaller weights are no weights.
    """
    index = GraphIndex.of_model(model.graph)
    order = {id(node): number for number, node in enumerate(index.by_dataflow())}
    layers: list[Layer] = []
    reasons: dict[str, str] = {}

    for name in model.tensors:
        spec = spec_of(model.tensors, name)
        if spec.onnx_type not in PRICED_TYPES or spec.size < min_elements or len(spec.shape) < 2:
            continue
        readers = [node for node in index.users(name) if id(node) in order]
        found = _layer_of(model, readers, name, spec.shape)
        if isinstance(found, str) or name in index.kept:
            reasons[name] = found if isinstance(found, str) else "a graph inside a node reads it too"
        else:
            layers.append(found)

    return sorted(layers, key=lambda layer: (order[id(layer.node)], layer.place.place)), reasons


def _layer_of(
    model: QuantizedModel, readers: list[onnx.NodeProto], name: str, shape: tuple[int, ...]
) -> Layer | str:
    """The layer, or why there is none."""
    if len(readers) != 1 or list(readers[0].input).count(name) != 1:
        return "several nodes read it" if readers else "no node of the main graph reads it"

    node = readers[0]
    place = next((p for p in weight_inputs(node) if node.input[p.place] == name), None)
    if place is None or not is_standard(node) or place.scale is not None:
        return f"{node.op_type} is not known to multiply with it"

    attributes = attributes_of(node)
    layer = Layer(node, name, place, shape, int(attributes.get("group", 1)))
    return _objection(layer, attributes, model) or layer


def _objection(layer: Layer, attributes: Mapping[str, Any], model: QuantizedModel) -> str:
    """Why a layer cannot be treated; nothing where it can."""
    layout, operator = layer.place.layout, layer.node.op_type
    is_matrix = layout in (Layout.MATRIX, Layout.TABLE)
    columns = prod(layer.shape) // max(layer.n_rows, 1)
    objections = {
        f"{operator} is not rounded at a price": layout in (Layout.EXPERTS, Layout.EQUATION)
        or operator == "DeformConv",
        "matrices in batches are not rounded at a price": is_matrix and len(layer.shape) != 2,
        "it is looked up along another axis than the first": layout is Layout.TABLE
        and attributes.get("axis", 0),
        "a grouped ConvTranspose is not rounded at a price": operator == _TRANSPOSED and layer.n_groups > 1,
        "this form of Gemm is not rounded at a price": operator == "Gemm"
        and (attributes.get("transA", 0) or layer.is_left),
        "this form of recurrent layer is not rounded at a price": layout is Layout.GATES
        and attributes.get("layout", 0),
        "it is multiplied with a constant": layer.input in model.tensors and layout is not Layout.GATES,
        f"its rows have more than {MAX_COLUMNS:,} columns": layout is not Layout.TABLE
        and columns > MAX_COLUMNS,
    }
    return next((reason for reason, holds in objections.items() if holds), "")
