"""Elementwise functions between two quantizations: a table of 256 codes, as ONNX Runtime computes them."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelpress.export.graphs.operators import is_standard
from modelpress.export.runtime import open_session, run_feed

POINTWISE = frozenset(
    (
        "Abs", "Add", "Celu", "Ceil", "Clip", "Div", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
        "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "Pow", "Reciprocal", "Relu",
        "Round", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "Sqrt", "Sub", "Tanh", "ThresholdedRelu",
    )
)  # fmt: skip

Arrays = Mapping[str, npt.NDArray[np.generic]]


def island_of(
    last: onnx.NodeProto,
    producer: Callable[[str], onnx.NodeProto | None],
    leaves: Callable[[str], str | None],
) -> tuple[list[onnx.NodeProto], str] | None:
    """The nodes that lead from one tensor of codes to this quantization, elementwise, and that tensor's name.

    Args:
        last: A QuantizeLinear.
        producer: The node that makes a tensor.
        leaves: The codes that a tensor is dequantized from; None where it is something else.

    Returns:
        In an order in which they can run, `last` behind them; None where there are other operators or tensors.
    """
    nodes: list[onnx.NodeProto] = []
    sources: set[str] = set()

    def visit(name: str) -> bool:
        made_by = producer(name)
        if made_by is None or made_by.op_type == "Constant":
            return True  # a constant; other inputs are refused below

        codes = leaves(name)
        if codes is not None:
            sources.add(codes)
        elif not (
            is_standard(made_by)
            and made_by.op_type in POINTWISE
            and all(map(visit, filter(None, made_by.input)))
        ):
            return False

        if not any(node is made_by for node in nodes):
            nodes.append(made_by)
        return True

    if not visit(last.input[0]) or len(sources) != 1:
        return None
    return [*nodes, last], sources.pop()


def table_of(
    nodes: list[onnx.NodeProto], codes: str, constants: Arrays, opset: onnx.ModelProto
) -> bytes | None:
    """What the nodes make of each of the 256 codes; None where a constant is no single number."""
    made = {name for node in nodes for name in node.output}
    names = {name for node in nodes for name in node.input if name and name not in made and name != codes}
    if any(name not in constants or constants[name].size != 1 for name in names):
        return None

    graph = helper.make_graph(
        nodes,
        "table",
        [helper.make_tensor_value_info(codes, TensorProto.UINT8, [256])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.UINT8, [256])],
        [numpy_helper.from_array(constants[name].reshape(()), name) for name in sorted(names)],
    )
    model = helper.make_model(graph, opset_imports=opset.opset_import, ir_version=opset.ir_version)
    session = open_session(model.SerializeToString(), threads=1)
    return run_feed(session, {codes: np.arange(256, dtype=np.uint8)})[nodes[-1].output[0]].tobytes()
