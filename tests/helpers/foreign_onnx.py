"""ONNX models as other tools write them."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NODE, INFO = helper.make_node, helper.make_tensor_value_info


def foreign(
    nodes, tensors, *, x=("N", 4), y=("N", 4), ir_version=8, opset=17, elem=TensorProto.FLOAT, x_elem=None
):
    """A model of these nodes, from input x to output y; `tensors` are TensorProtos, or arrays by name."""
    if isinstance(tensors, dict):
        tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in tensors.items()]
    graph = helper.make_graph(
        list(nodes),
        "foreign",
        [INFO("x", x_elem or elem, x)],
        [INFO("y", elem, y)],
        tensors,
        doc_string="a graph from elsewhere",
    )
    model = helper.make_model(
        graph,
        ir_version=ir_version,
        opset_imports=[helper.make_opsetid("", opset)],
        producer_name="elsewhere",
    )
    helper.set_model_props(model, {"author": "somebody"})
    return model


def every_operator(dtype=np.float32):
    """Conv, ConvTranspose, Gemm both ways, MatMul, a big Constant node and a scalar."""
    rng = np.random.default_rng(3)

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    big = numpy_helper.from_array(normal(10, 20), "ignored")
    nodes = [
        NODE("Constant", [], ["in_a_node"], value=big),
        NODE("Constant", [], ["one"], value=numpy_helper.from_array(np.ones((), dtype))),
        NODE("Conv", ["x", "conv.w", "conv.b"], ["a"], pads=[1, 1, 1, 1]),
        NODE("ConvTranspose", ["a", "up.w"], ["b"], strides=[2, 2]),
        NODE("GlobalAveragePool", ["b"], ["c"]),
        NODE("Flatten", ["c"], ["d"]),
        NODE("Gemm", ["d", "gemm.t", "gemm.b"], ["e"], transB=1),
        NODE("Gemm", ["e", "gemm"], ["f"]),
        NODE("MatMul", ["f", "matmul"], ["g"]),
        NODE("MatMul", ["g", "in_a_node"], ["h"]),
        NODE("Add", ["h", "one"], ["y"]),
    ]
    tensors = {
        "conv.w": normal(8, 3, 3, 3),
        "conv.b": normal(8),
        "up.w": normal(8, 6, 2, 2),
        "gemm.t": normal(12, 6),
        "gemm.b": normal(12),
        "gemm": normal(12, 14),
        "matmul": normal(14, 10),
    }
    shapes = {"x": ("N", 3, 6, 6), "y": ("N", 20)}
    return foreign(nodes, tensors, **shapes, elem=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def embedding():
    """A Gather whose table also serves, transposed, as the output layer."""
    rng = np.random.default_rng(4)
    nodes = [
        NODE("Gather", ["table", "x"], ["a"]),
        NODE("Transpose", ["table"], ["t"], perm=[1, 0]),
        NODE("MatMul", ["a", "t"], ["y"]),
    ]
    table = rng.standard_normal((50, 16)).astype(np.float32)
    return foreign(nodes, {"table": table}, x=("N", "L"), y=("N", "L", 50), x_elem=TensorProto.INT64)


def branching():
    """An If whose branches have initializers of their own, of one name, and use one of the main graph."""
    rng = np.random.default_rng(5)
    branches = [
        helper.make_graph(
            [NODE("Add", ["x", "shift"], [f"s{i}"]), NODE("MatMul", [f"s{i}", "shared"], [f"o{i}"])],
            f"branch{i}",
            [],
            [INFO(f"o{i}", TensorProto.FLOAT, ("N", 4))],
            [numpy_helper.from_array(np.full((1, 4), i, np.float32), "shift")],
        )
        for i in range(2)
    ]
    nodes = [
        NODE("ReduceSum", ["x"], ["total"], keepdims=0),
        NODE("Greater", ["total", "zero"], ["positive"]),
        NODE("If", ["positive"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    return foreign(nodes, {"zero": np.float32(0), "shared": rng.standard_normal((4, 4)).astype(np.float32)})


def typed_fields():
    """Values in float_data, double_data, int32_data, int64_data and uint64_data; none as raw bytes."""
    make = helper.make_tensor
    tensors = [
        make("float", TensorProto.FLOAT, [2, 3], [1.5, -2, 0, 3, 4, -0.0]),
        make("double", TensorProto.DOUBLE, [2], [1e300, -1.0]),
        make("int8", TensorProto.INT8, [3], [-128, 0, 127]),
        make("uint16", TensorProto.UINT16, [2], [0, 65535]),
        make("int32", TensorProto.INT32, [2], [-(2**31), 5]),
        make("int64", TensorProto.INT64, [2], [-(2**63), 7]),
        make("uint64", TensorProto.UINT64, [1], [2**64 - 1]),
        make("bool", TensorProto.BOOL, [3], [True, False, True]),
        make("half", TensorProto.FLOAT16, [2], np.array([1.5, -2], np.float16)),
        make("scalar", TensorProto.FLOAT, [], [2.5]),
        make("empty", TensorProto.FLOAT, [0, 4], []),
    ]
    return foreign([NODE("Identity", ["x"], ["y"])], tensors)


def saved(model, path):
    path.write_bytes(model.SerializeToString())
    return path


def arrays_of(model):
    """Every initializer as an array."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def inputs_for(session, seed=0):
    """Something to run a session on, of the shape and type it asks for; named axes get 2."""
    rng = np.random.default_rng(seed)
    (x,) = session.get_inputs()
    shape = [length if isinstance(length, int) else 2 for length in x.shape]
    if x.type == "tensor(int64)":
        return {"x": rng.integers(0, 50, shape)}
    return {"x": rng.standard_normal(shape).astype(np.float16 if "16" in x.type else np.float32)}


MODELS = {
    "operators": every_operator,
    "float16": lambda: every_operator(np.float16),
    "embedding": embedding,
    "branching": branching,
    "typed fields": typed_fields,
}

__all__ = ["INFO", "MODELS", "NODE", "arrays_of", "foreign", "inputs_for", "onnx", "saved"]
