"""Models for integer arithmetic, and what ONNX Runtime makes of them."""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from modelpress.export.graphs.initializers import with_initializers
from modelpress.export.onnx_flavours.int8 import Int8Plan
from modelpress.export.quantized import QuantizedModel


def chain(nodes, tensors, shape, outputs=("y",), opset=13):
    """A model of these nodes from input x; the outputs' shapes are inferred."""
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])
    arrays = {name: np.asarray(tensor) for name, tensor in tensors.items()}
    inferred = onnx.shape_inference.infer_shapes(with_initializers(model, arrays))
    del model.graph.output[:]
    model.graph.output.extend(inferred.graph.output)
    return QuantizedModel(model, arrays)


def images_for(model, n=48, seed=0):
    (x,) = model.graph.graph.input
    shape = [axis.dim_value for axis in x.type.tensor_type.shape.dim][1:]
    return np.random.default_rng(seed).standard_normal((n, *shape)).astype(np.float32)


def with_int8_weights(plan: Int8Plan) -> onnx.ModelProto:
    """A planned int8 model with a byte for every weight."""
    weights = {name: weight.codes() for name, weight in plan.weights.items()}
    return with_initializers(plan.graph, {**plan.tensors, **weights})


def optimised_operators(onnx_model):
    """How often each operator is in the graph that ONNX Runtime runs."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(onnx_model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return Counter(node.op_type for node in onnx.load(path).graph.node)
