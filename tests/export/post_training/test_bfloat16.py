"""Weights in bfloat16: quantized where the network computes in it, kept where the graph widens them."""

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelpress.export.graphs.initializers import with_initializers
from modelpress.export.onnx_flavours import emit
from modelpress.export.post_training.packing import WeightOptions, open_for_packing
from modelpress.export.press.reading import decode_artifact
from modelpress.export.press.writing import encode_artifact
from modelpress.export.quantized import QuantizedTensor
from tests.helpers.foreign_onnx import NODE, saved

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((16, 24)).astype(BFLOAT16)
IMAGES = RNG.standard_normal((8, 16)).astype(np.float32)
DIRECT = [
    NODE("Cast", ["x"], ["a"], to=TensorProto.BFLOAT16),
    NODE("MatMul", ["a", "w"], ["b"]),
    NODE("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
]
WIDENED = [NODE("Cast", ["w"], ["v"], to=TensorProto.FLOAT), NODE("MatMul", ["x", "v"], ["y"])]


def packed(nodes, weight, path, **options):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 24])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    made = open_for_packing(saved(model, path), WeightOptions(min_elements=1, **options))
    return model, made, decode_artifact(encode_artifact(made.model))


def outputs_of(model):
    return ReferenceEvaluator(model).run(None, {"x": IMAGES})[0]


@pytest.mark.parametrize("flavour", ["float", "weight-only", "sparse"])
def test_a_weight_that_the_network_computes_with_gets_codes_along_its_outputs(flavour, tmp_path):
    model, _, decoded = packed(DIRECT, WEIGHT, tmp_path / "m.onnx")
    found = decoded.tensors["w.float32"]
    assert isinstance(found, QuantizedTensor)
    assert (found.bits, found.channel_axis, found.scale.shape) == (8, 1, (24,))
    error = np.abs(found.dequantize() - WEIGHT.astype(np.float32))
    assert error.max() <= 0.501 * found.scale.max()

    expected = outputs_of(model)
    assert np.ptp(expected, axis=0).max() > 1  # the outputs depend on the inputs
    found = outputs_of(emit(decoded, flavour=flavour))
    assert np.abs(found - expected).max() < 0.02 * np.ptp(expected)


@pytest.mark.parametrize(
    ("nodes", "options", "reason"),
    [(WIDENED, {}, "bfloat16 that the graph widens"), (DIRECT, {"lossless": True}, "--lossless")],
)
def test_one_that_it_widens_and_one_without_loss_come_back_bit_for_bit(nodes, options, reason, tmp_path):
    model, made, decoded = packed(nodes, WEIGHT, tmp_path / "m.onnx", **options)
    assert_array_equal(decoded.tensors["w"].view(np.uint16), WEIGHT.view(np.uint16))
    assert reason in made.tensors.summaries["w"].reason
    assert with_initializers(decoded.graph, dict(decoded.tensors)).graph.node == model.graph.node


def test_infinity_is_kept_with_a_note(tmp_path):
    weight = WEIGHT.copy()
    weight[3, 4] = -np.inf
    _, made, decoded = packed(DIRECT, weight, tmp_path / "m.onnx")
    assert made.notes == ("w: holds NaN or infinity; stored bit for bit, not quantized",)
    assert_array_equal(decoded.tensors["w"].view(np.uint16), weight.view(np.uint16))
