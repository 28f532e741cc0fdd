"""What ONNX Runtime's CPU provider does with each way of writing a weight down, and since when.

The table decides what the flavours emit. It is not taken on trust: every row comes with a small model, which
`modelpress.benchmarks.runtimes.probe` runs in the installed version.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelpress.export.graphs.conventions import IR_VERSION

Version = tuple[int, int]
_NEWEST_IR = 10  # 4-bit types need it; 2-bit types one more
WEIGHT_SHAPE = (4, 2, 3, 3)


@dataclass(frozen=True)
class Capability:
    """One way of storing the weight of a convolution.

    Attributes:
        name: What it is called in the table.
        opset: The oldest opset that has it.
        since: First ONNX Runtime that loads it and gives right answers on the CPU; None: none so far.
        folded: Whether the runtime computes the weight once, at load, or fuses it into an integer convolution;
            otherwise it is computed again at every inference.
        used_by: Flavours that write it.
        instead: What the flavours write where they do not use it.
        probe: Makes the model: input ``x`` of shape ``(1, 2, 5, 5)``, output ``y``, weights of -1, 0 and 1.
    """

    name: str
    opset: int
    since: Version | None
    folded: bool
    used_by: tuple[str, ...]
    instead: str
    probe: Callable[[], onnx.ModelProto]


def probe_weight() -> npt.NDArray[np.float32]:
    """The weight of every probe, shape `WEIGHT_SHAPE`."""
    return np.random.default_rng(0).integers(-1, 2, WEIGHT_SHAPE).astype(np.float32)


def _float() -> onnx.ModelProto:
    return _model([], {"w": probe_weight()}, opset=13)


def _arithmetic() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["codes"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["f", "low"], ["w"]),
    ]
    return _model(
        nodes, {"codes": (probe_weight() + 1).astype(np.uint8), "low": np.array(-1, np.float32)}, opset=13
    )


def _bits() -> onnx.ModelProto:
    """Two bits per code, four codes in a byte."""
    codes = (probe_weight().reshape(-1, 4) + 1).astype(np.uint8)
    # first code in the highest bits
    packed = (codes << np.array([6, 4, 2, 0], np.uint8)).sum(1, dtype=np.uint8)[:, None]
    nodes = [
        helper.make_node("BitShift", ["packed", "shifts"], ["s"], direction="RIGHT"),
        helper.make_node("Mod", ["s", "four"], ["m"]),
        helper.make_node("Cast", ["m"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["f", "low"], ["v"]),
        helper.make_node("Reshape", ["v", "shape"], ["w"]),
    ]
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "packed": packed,
        "shifts": np.array([6, 4, 2, 0], np.uint8),
        "four": np.array(4, np.uint8),
        "low": np.array(-1, np.float32),
        "shape": np.array(WEIGHT_SHAPE, np.int64),
    }

    return _model(nodes, arrays, opset=13)


def _ranks() -> onnx.ModelProto:
    """A bit for every weight and the values of the nonzeros, found by their rank."""
    weight = probe_weight().reshape(-1)
    nodes = [
        helper.make_node("CumSum", ["kept", "axis"], ["rank"]),
        helper.make_node("Mul", ["rank", "kept"], ["index"]),
        helper.make_node("GatherElements", ["table", "index"], ["flat"], axis=0),
        helper.make_node("Reshape", ["flat", "shape"], ["w"]),
    ]
    arrays = {
        "kept": (weight != 0).astype(np.int32),
        "axis": np.array(0, np.int64),
        # rank 0 is the removed weight
        "table": np.concatenate([np.zeros(1, np.float32), weight[weight != 0]]),
        "shape": np.array(WEIGHT_SHAPE, np.int64),
    }

    return _model(nodes, arrays, opset=13)


def _dequantized_in_float() -> onnx.ModelProto:
    node = helper.make_node("DequantizeLinear", ["codes", "one"], ["w"])
    return _model([node], {"codes": probe_weight().astype(np.int8), "one": np.array(1, np.float32)}, opset=13)


def _integer(codes: npt.NDArray[np.integer], zero_point: int) -> onnx.ModelProto:
    """A convolution between quantized activations."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "middle"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "middle"], ["d"]),
        helper.make_node("DequantizeLinear", ["codes", "one", "zero"], ["w"]),
        helper.make_node("Conv", ["d", "w"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "step_out", "middle"], ["qc"]),
        helper.make_node("DequantizeLinear", ["qc", "step_out", "middle"], ["y"]),
    ]
    arrays = {
        "codes": codes,
        "zero": np.asarray(zero_point, codes.dtype),
        "one": np.array(1, np.float32),
        "step": np.array(0.03, np.float32),
        "step_out": np.array(0.2, np.float32),
        "middle": np.array(128, np.uint8),
    }
    return _model(nodes, arrays, opset=13, with_conv=False)


def _int8() -> onnx.ModelProto:
    return _integer(probe_weight().astype(np.int8), 0)


def _uint8() -> onnx.ModelProto:
    return _integer((probe_weight() + 128).astype(np.uint8), 128)


def _narrow(onnx_type: int, *, opset: int, by_cast: bool) -> onnx.ModelProto:
    """Codes in one of ONNX's types below eight bits."""
    first = (
        helper.make_node("Cast", ["codes"], ["f"], to=TensorProto.FLOAT)
        if by_cast
        else helper.make_node("DequantizeLinear", ["codes", "one"], ["f"])
    )
    model = _model(
        [first, helper.make_node("Add", ["f", "low"], ["w"])], {"low": np.array(-1, np.float32)}, opset=opset
    )
    model.graph.initializer.append(
        helper.make_tensor(
            "codes", onnx_type, WEIGHT_SHAPE, (probe_weight() + 1).astype(np.uint8).reshape(-1)
        )
    )
    if not by_cast:
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(1, np.float32), "one"))

    # opset 25 came with the IR version after
    model.ir_version = _NEWEST_IR + (opset >= 25)
    return model


def _uint4_cast() -> onnx.ModelProto:
    return _narrow(TensorProto.UINT4, opset=21, by_cast=True)


def _uint4_dequantized() -> onnx.ModelProto:
    return _narrow(TensorProto.UINT4, opset=21, by_cast=False)


def _uint2_dequantized() -> onnx.ModelProto:
    return _narrow(TensorProto.UINT2, opset=25, by_cast=False)


def _model(
    nodes: list[onnx.NodeProto],
    arrays: Mapping[str, npt.NDArray[np.generic]],
    *,
    opset: int,
    with_conv: bool = True,
) -> onnx.ModelProto:
    conv = [helper.make_node("Conv", ["x", "w"], ["y"])] if with_conv else []
    graph = helper.make_graph(
        [*nodes, *conv],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 3, 3])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", opset)])


_PACKED = "codes packed in uint8, expanded by standard operators at load"
CAPABILITIES = (
    Capability("float32", 13, (1, 15), True, ("float",), "", _float),
    Capability(
        "codes in uint8, scaled by Cast, Mul and Add", 13, (1, 15), True, ("weight-only",), "", _arithmetic
    ),
    Capability(
        "codes of 2 or 4 bits packed in uint8", 13, (1, 15), True, ("weight-only", "sparse"), "", _bits
    ),
    Capability("bitmap and nonzeros", 13, (1, 15), True, ("sparse", "int8-sparse"), "", _ranks),
    Capability("int8 with zero point 0, integer convolution", 13, (1, 15), True, ("int8",), "", _int8),
    Capability(
        "uint8, integer convolution", 13, (1, 15), True, (), "int8 with zero point 0, twice as fast", _uint8
    ),
    Capability(
        "int8, dequantized for a float convolution", 13, (1, 15), False, (), _PACKED, _dequantized_in_float
    ),
    Capability("UINT4, cast", 21, (1, 23), True, (), _PACKED, _uint4_cast),
    Capability(
        "UINT4, dequantized for a float convolution", 21, (1, 20), False, (), _PACKED, _uint4_dequantized
    ),
    Capability(
        "UINT2, dequantized for a float convolution", 25, (1, 24), False, (), _PACKED, _uint2_dequantized
    ),
)
