"""Which operators compute with a weight, and how it lies: one table, in which a further operator is a line."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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
    GATES = "gates"  # directions of a recurrent layer, then the rows of all its gates, then columns
    EXPERTS = "experts"  # one matrix for each of several experts
    EQUATION = "equation"  # as the equation of an Einsum says


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
        axis = self.axis % n_axes
        # an exchange of the last two axes: matrices that may have it have two, or lie in batches before them
        return 2 * n_axes - 3 - axis if self.is_transposed(node) else axis


# Where two inputs may be the weight, the one where layers have it comes first.
_RIGHT = WeightInput(place=1, axis=-1, layout=Layout.MATRIX, integer_form="QLinearMatMul")
_LEFT = WeightInput(place=0, axis=-2, layout=Layout.MATRIX)
_OF_GEMM = WeightInput(
    place=1, axis=1, layout=Layout.MATRIX, transposed_by="transB", bias=2, integer_form="QGemm"
)
_LEFT_OF_GEMM = WeightInput(place=0, axis=0, layout=Layout.MATRIX, transposed_by="transA", bias=2)

_GATES = tuple(WeightInput(place=place, axis=1, layout=Layout.GATES) for place in (1, 2))
_PROJECTION = WeightInput(
    place=1, axis=1, layout=Layout.MATRIX, bias=2
)  # of queries, keys and values at once
_CONV = WeightInput(place=1, axis=0, layout=Layout.KERNEL, bias=2, integer_form="QLinearConv")

WEIGHTED: Mapping[str, tuple[WeightInput, ...]] = MappingProxyType(
    {
        "Conv": (_CONV,),
        "ConvTranspose": (WeightInput(place=1, axis=1, layout=Layout.KERNEL, bias=2),),
        "DeformConv": (WeightInput(place=1, axis=0, layout=Layout.KERNEL, bias=3),),
        "Gemm": (_OF_GEMM, _LEFT_OF_GEMM),
        "MatMul": (_RIGHT, _LEFT),
        "Gather": (WeightInput(place=0, axis=0, layout=Layout.TABLE),),
        "LSTM": _GATES,
        "GRU": _GATES,
        "RNN": _GATES,
        "Einsum": tuple(WeightInput(place=k, axis=-1, layout=Layout.EQUATION) for k in (1, 0, 2, 3)),
        "QLinearConv": (WeightInput(place=3, axis=0, layout=Layout.KERNEL, bias=8, scale=4),),
        "QLinearMatMul": (WeightInput(place=3, axis=-1, layout=Layout.MATRIX, scale=4),),
    }
)
_RIGHT_OR_TRANSPOSED = WeightInput(place=1, axis=-1, layout=Layout.MATRIX, transposed_by="transB")
_LEFT_OR_TRANSPOSED = WeightInput(place=0, axis=-2, layout=Layout.MATRIX, transposed_by="transA")
_WEIGHTED_BY_RUNTIME: Mapping[str, tuple[WeightInput, ...]] = MappingProxyType(
    {
        "Attention": (_PROJECTION,),
        "PackedAttention": (_PROJECTION,),
        "LongformerAttention": tuple(replace(_PROJECTION, place=k, bias=k + 1) for k in (1, 4)),
        "DecoderAttention": tuple(replace(_PROJECTION, place=k, bias=None) for k in (2, 3)),
        "EmbedLayerNormalization": tuple(
            WeightInput(place=k, axis=0, layout=Layout.TABLE) for k in (2, 3, 4)
        ),
        "FusedConv": (replace(_CONV, integer_form=""),),
        "NhwcFusedConv": (replace(_CONV, integer_form=""),),
        "ConvTransposeWithDynamicPads": (WeightInput(place=1, axis=1, layout=Layout.KERNEL, bias=3),),
        "FusedGemm": (replace(_OF_GEMM, integer_form=""), _LEFT_OF_GEMM),
        "FusedMatMul": (_RIGHT_OR_TRANSPOSED, _LEFT_OR_TRANSPOSED),
        "TransposeMatMul": (_RIGHT_OR_TRANSPOSED, _LEFT_OR_TRANSPOSED),
        "GemmFastGelu": (replace(_RIGHT, integer_form=""),),
        "FusedMatMulActivation": (_RIGHT_OR_TRANSPOSED, _LEFT_OR_TRANSPOSED),
        "MoE": tuple(WeightInput(place=k, axis=-1, layout=Layout.EXPERTS) for k in (2, 4, 6)),
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


def output_axis(node: onnx.NodeProto, found: WeightInput, *, n_axes: int) -> int | None:
    """As `WeightInput.channel_axis`, for every layout; None where no axis of the weight is one of the output's alone.

    Example:
        >>> node = onnx.helper.make_node("Einsum", ["x", "w"], ["y"], equation="nk,km->nm")
        >>> output_axis(node, next(weight_inputs(node)), n_axes=2)
        1
    """
    if found.layout is not Layout.EQUATION:
        return found.channel_axis(node, n_axes=n_axes)

    equation = next((a.s.decode("ascii", "replace") for a in node.attribute if a.name == "equation"), "")
    terms, arrow, result = equation.replace(" ", "").partition("->")
    operands = terms.split(",")
    if not arrow or "." in equation or found.place >= len(operands) or len(operands[found.place]) != n_axes:
        return (
            None  # implicit results and axes that are not spelt out are rare, and one scale is right for them
        )

    others = "".join(operands[: found.place] + operands[found.place + 1 :])
    own = [k for k, letter in enumerate(operands[found.place]) if letter in result and letter not in others]
    return own[-1] if own else None


def layer_weight_inputs(node: onnx.NodeProto) -> list[WeightInput]:
    """As `weight_inputs`, of ONNX's own convolutions and linear layers in float only: nothing else is one layer."""
    return [
        found
        for found in weight_inputs(node)
        if found.layout in (Layout.KERNEL, Layout.MATRIX) and found.scale is None and is_standard(node)
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
