"""Small ONNX graphs, quantized or not, in a line or two."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

UINT8, INT8, STEP, FINE_STEP = np.uint8(0), np.int8(0), np.float32(0.05), np.float32(0.01)


class Sketch:
    """Collects nodes and initializers; every method returns a tensor's name. Input ``x``, output ``y``."""

    def __init__(self, *, seed=0):
        self.nodes, self.stored = [], []
        self.rng = np.random.default_rng(seed)

    def constant(self, array, name=None):
        name = name or f"c{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def narrow(self, onnx_type, shape=(8, 8, 3, 3)):
        """Codes 0 and 1 of a type that numpy does not know."""
        name = f"c{len(self.stored)}"
        self.stored.append(helper.make_tensor(name, onnx_type, shape, self.rng.integers(0, 2, shape).ravel()))
        return name

    def floats(self, *shape):
        return self.constant(self.rng.standard_normal(shape).astype(np.float32))

    def node(self, op, *inputs, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [f"t{len(self.nodes)}"], **attributes))
        return self.nodes[-1].output[0]

    def quantize(self, x, zero_point=UINT8, *, scale=STEP):
        return self.node("QuantizeLinear", x, self.constant(scale), self.constant(zero_point))

    def dequantize(self, x, zero_point=UINT8, *, scale=STEP, **attributes):
        return self.node("DequantizeLinear", x, self.constant(scale), self.constant(zero_point), **attributes)

    def both(self, x, zero_point=UINT8, *, scale=STEP):
        """QuantizeLinear, DequantizeLinear."""
        return self.dequantize(self.quantize(x, zero_point, scale=scale), zero_point, scale=scale)

    def weight(self, shape=(8, 8, 3, 3), zero_point=INT8, *, scale=FINE_STEP, **attributes):
        """Dequantized codes."""
        codes = self.rng.integers(0, 100, shape).astype(np.asarray(zero_point).dtype)
        if np.ndim(scale):
            zero_point = np.full(np.shape(scale), zero_point)
        return self.dequantize(self.constant(codes), zero_point, scale=scale, **attributes)

    def conv(self, x, weight):
        return self.node("Conv", x, weight, pads=[1] * 4)

    def model(self, *, shape=("N", 8, 8, 8), opset=13, ir_version=8, also_inputs=(), rank=None):
        """The last node's output becomes the model's; files need its `rank`."""
        self.nodes[-1].output[0] = "y"
        graph = helper.make_graph(
            self.nodes,
            "sketch",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape), *also_inputs],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, rank and [None] * rank)],
            self.stored,
        )
        return helper.make_model(graph, ir_version=ir_version, opset_imports=[helper.make_opsetid("", opset)])


def input_of(tensor: onnx.TensorProto):
    """An initializer declared as an input of the graph too."""
    return helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
