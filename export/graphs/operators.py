"""Which operators compute with a weight, and how it lies: one table, in which a further operator is a line.

Left out are operators whose weights are stacked along further axes (LSTM, GRU, RNN, Einsum): one axis does not tell
their output channels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import onnx

STANDARD_DOMAINS = ("", "ai.onnx")
_RUNTIME_DOMAIN = "com.microsoft"  # where ONNX Runtime keeps operators of its own


class Layout(StrEnum):
    """What the axes of a weight are."""

    KERNEL = "kernel"  # two axes of channels, then those of space
    MATRIX = "matrix"  # the last two axes are rows and columns
    TABLE = "table"  # one row for each entry that is looked up


@dataclass(frozen=True, kw_only=True)
class WeightInput:
    """An input of an operator that may be its weight.

    Attributes:
        place: Number of the input.
        axis: Which axis counts the output channels, from the end where negative.
        layout: What the axes are.
        transposed_by: The attribute that exchanges the two axes of a matrix; empty where there is none.
        bias: Number of the input that is added to the output, one value for each channel.
        integer_form: The operator that ONNX Runtime computes it with on integers; empty where it has none.
        scale: Number of the input with the weight's scales, of operators on integers; its zero points follow.
    """

    place: int
    axis: int
    layout: Layout
    transposed_by: str = ""
    bias: int | None = None
    integer_form: str = ""
    scale: int | None = None

    def bias_of(self, node: onnx.NodeProto) -> str | None:
        """The name of a node's bias; None where it has none."""
        if self.bias is None or len(node.input) <= self.bias:
            return None
        return node.input[self.bias] or None

    def is_transposed(self, node: onnx.NodeProto) -> bool:
        """Whether this node takes the matrix with its axes exchanged."""
        return bool(self.transposed_by and attribute_of(node, self.transposed_by, 0))

    def channel_axis(self, node: onnx.NodeProto, *, n_axes: int) -> int:
        """The axis of this node's weight, of `n_axes` axes, that counts the output channels.

        Example:
            >>> gemm = onnx.helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
            >>> next(weight_inputs(gemm)).channel_axis(gemm, n_axes=2)
            0
        """
        # an exchange is only defined for matrices of two axes, where it turns 0 into 1 and 1 into 0
        return 1 - self.axis if self.is_transposed(node) else self.axis % n_axes


# Where two inputs may be the weight, the one where layers have it comes first.
_RIGHT = WeightInput(place=1, axis=-1, layout=Layout.MATRIX, integer_form="QLinearMatMul")
_LEFT = WeightInput(place=0, axis=-2, layout=Layout.MATRIX)
_OF_GEMM = WeightInput(
    place=1, axis=1, layout=Layout.MATRIX, transposed_by="transB", bias=2, integer_form="QGemm"
)
_LEFT_OF_GEMM = WeightInput(place=0, axis=0, layout=Layout.MATRIX, transposed_by="transA", bias=2)

WEIGHTED: Mapping[str, tuple[WeightInput, ...]] = MappingProxyType(
    {
        "Conv": (WeightInput(place=1, axis=0, layout=Layout.KERNEL, bias=2, integer_form="QLinearConv"),),
        "ConvTranspose": (WeightInput(place=1, axis=1, layout=Layout.KERNEL, bias=2),),
        "Gemm": (_OF_GEMM, _LEFT_OF_GEMM),
        "MatMul": (_RIGHT, _LEFT),
        "Gather": (WeightInput(place=0, axis=0, layout=Layout.TABLE),),
        "QLinearConv": (WeightInput(place=3, axis=0, layout=Layout.KERNEL, bias=8, scale=4),),
        "QLinearMatMul": (WeightInput(place=3, axis=-1, layout=Layout.MATRIX, scale=4),),
    }
)
_WEIGHTED_BY_RUNTIME: Mapping[str, tuple[WeightInput, ...]] = MappingProxyType(
    {
        "QLinearConv": WEIGHTED["QLinearConv"],
        "QGemm": (
            WeightInput(place=3, axis=1, layout=Layout.MATRIX, transposed_by="transB", bias=6, scale=4),
        ),
    }
)


def weight_inputs(node: onnx.NodeProto) -> Iterator[WeightInput]:
    """The inputs of a node that may be its weight, those it leaves out aside; none of operators without one."""
    table = WEIGHTED if is_standard(node) else {}
    if node.domain == _RUNTIME_DOMAIN:
        table = _WEIGHTED_BY_RUNTIME

    return (found for found in table.get(node.op_type, ()) if found.place < len(node.input))


def layer_weight_inputs(node: onnx.NodeProto) -> list[WeightInput]:
    """As `weight_inputs`, of convolutions and linear layers in float only: nothing looked up, nothing on integers."""
    return [
        found for found in weight_inputs(node) if found.layout is not Layout.TABLE and found.scale is None
    ]


def layer_weights(node: onnx.NodeProto) -> list[str]:
    """Names of the inputs of a convolution or linear layer in float that may be its weight; none of other nodes.

    Example:
        >>> layer_weights(onnx.helper.make_node("MatMul", ["x", "w"], ["y"]))
        ['w', 'x']
    """
    return [node.input[found.place] for found in layer_weight_inputs(node)]


def is_standard(node: onnx.NodeProto) -> bool:
    """Whether the operator is one of ONNX's own."""
    return node.domain in STANDARD_DOMAINS


def attribute_of(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute of a node.

    Example:
        >>> attribute_of(onnx.helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), "transB", 0)
        1
    """
    return next((int(a.i) for a in node.attribute if a.name == name), default)
