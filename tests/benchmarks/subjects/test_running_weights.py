import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal
from onnx import TensorProto

from modelpress.benchmarks.audits.fidelity import tensors_that_differ
from modelpress.benchmarks.measures.sparsity import total_sparsity
from modelpress.benchmarks.subjects import running_weights as module
from modelpress.benchmarks.subjects.running_weights import constant_tensors, running_weights, weight_steps
from modelpress.export.errors import InputError
from modelpress.export.onnx_flavours import emit
from tests.helpers.graph_sketch import Sketch
from tests.helpers.models import small_model, sparse_model

STEPS = np.array([0.5, 0.25, 2.0], np.float32)


def dequantized_layer(**versions):
    """A linear layer whose weight is ``[[1, -2, 0], [0, 3, 4]]`` times a step per column."""
    s = Sketch()
    codes = s.constant(np.array([[1, -2, 0], [0, 3, 4]], np.int8), "codes")
    w = s.dequantize(codes, np.zeros(3, np.int8), scale=STEPS, axis=1)
    s.node("MatMul", "x", w)
    return s.model(shape=("N", 2), **versions)


def test_plain_weights_are_the_initializers():
    model = emit(small_model(), flavour="float")
    weights = running_weights(model)
    assert list(weights) == ["conv.weight", "fc.weight"]
    for name, tensor in small_model().quantized().items():
        assert_array_equal(weights[name], tensor.dequantize(), strict=True)


@pytest.mark.parametrize("flavour", ["weight-only", "sparse"])
def test_expanded_weights_equal_the_decoded_ones_bit_for_bit(flavour):
    for model in (small_model(), sparse_model()):
        emitted = emit(model, flavour=flavour)
        expected = running_weights(emit(model, flavour="float"))
        weights = running_weights(emitted)
        assert list(weights) == list(expected)
        assert all(weights[name].tobytes() == expected[name].tobytes() for name in expected)
        assert tensors_that_differ(model, emitted) == []


def test_a_changed_code_is_a_differing_tensor():
    model = sparse_model()
    emitted = emit(model, flavour="weight-only")
    streams = [t for t in emitted.graph.initializer if t.data_type == TensorProto.UINT8]
    stored = max(streams, key=lambda tensor: np.prod(tensor.dims))
    array = onnx.numpy_helper.to_array(stored).copy()
    array.reshape(-1)[array.size // 2] ^= 1
    stored.CopyFrom(onnx.numpy_helper.from_array(array, stored.name))
    assert len(tensors_that_differ(model, emitted)) == 1


def test_dequantized_weights_are_codes_times_steps():
    model = dequantized_layer()
    (weight,) = running_weights(model).values()
    assert_array_equal(weight, np.array([[0.5, -0.5, 0], [0, 0.75, 8]], np.float32), strict=True)
    assert total_sparsity(running_weights(model)) == pytest.approx(1 / 3)
    (steps,) = weight_steps(model).values()
    assert_array_equal(np.broadcast_to(steps, (2, 3))[0], STEPS)


def test_steps_per_tensor_and_rows_broadcast_too():
    s = Sketch()
    x = s.conv("x", s.weight(scale=np.float32(0.5)))
    s.conv(x, s.weight(scale=np.exp2(np.arange(8, dtype=np.float32)), axis=0))
    model = s.model()
    weights, steps = running_weights(model), weight_steps(model)
    assert list(weights) == list(steps)
    for name, weight in weights.items():
        in_steps = weight / steps[name]
        assert_array_equal(in_steps, np.round(in_steps))


def test_weights_of_operators_on_integers_are_dequantized():
    s = Sketch()
    codes = s.constant(np.array([[[[3]]], [[[-1]]]], np.int8), "codes")
    scale, zero = s.constant(np.float32(0.1)), s.constant(np.uint8(0))
    zeros, wide = s.constant(np.int8([0, 1])), s.constant(np.float32([0.5, 2]))
    q = s.quantize("x")
    s.node("DequantizeLinear", s.node("QLinearConv", q, scale, zero, codes, wide, zeros, scale, zero), scale)
    weights = running_weights(s.model(shape=("N", 1, 4, 4)))
    assert list(weights) == ["codes"]
    assert_array_equal(weights["codes"].ravel(), np.float32([1.5, -4.0]))


def test_weights_of_quantized_linear_layers_are_per_row_when_transposed():
    s = Sketch()
    scale, zero = s.constant(np.float32(0.1)), s.constant(np.uint8(0))
    codes, wide = s.constant(np.int8([[1, 2], [3, 4], [5, 6]]), "codes"), s.constant(np.float32([1, 0.5, 2]))
    s.node("QGemm", s.quantize("x"), scale, zero, codes, wide, s.constant(np.zeros(3, np.int8)), transB=1)
    s.nodes[-1].domain = "com.microsoft"
    weights = running_weights(s.model(shape=("N", 2)))
    assert_array_equal(weights["codes"], np.float32([[1, 2], [1.5, 2], [10, 12]]))


def test_constants_chains_and_lookup_tables_are_evaluated():
    s = Sketch()
    table = s.node("Constant", value_floats=[0.0, 1.5, -2.0])
    codes = s.constant(np.array([[0, 1], [2, 2]], np.int64))
    w = s.node("Gather", table, codes)
    x = s.node("MatMul", "x", w)
    s.node("MatMul", x, s.node("Transpose", s.node("Identity", w)))
    first, second = running_weights(s.model(shape=("N", 2))).values()
    assert_array_equal(first, np.float32([[0, 1.5], [-2, -2]]))
    assert_array_equal(second, first.T)


def test_what_depends_on_the_input_or_on_chance_is_no_weight():
    s = Sketch()
    x = s.node("MatMul", "x", s.node("Transpose", "x"))
    s.node("MatMul", x, s.node("RandomNormal", shape=[2, 2]))
    assert running_weights(s.model(shape=(2, 3))) == {}


def test_weights_in_groups_are_the_same(monkeypatch):
    model = emit(sparse_model(), flavour="sparse")
    together = running_weights(model)
    monkeypatch.setattr(module, "_AT_ONCE", 1)
    apart = running_weights(model)
    assert list(together) == list(apart)
    assert all(together[name].tobytes() == apart[name].tobytes() for name in together)


def test_what_the_runtime_does_not_know_is_evaluated_by_definition(monkeypatch):
    model = dequantized_layer(opset=21, ir_version=10)
    expected = running_weights(model)

    def refuse(*args, **kwargs):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(module, "open_session", refuse)
    (name,) = expected
    assert_array_equal(running_weights(model)[name], expected[name], strict=True)


def test_weights_that_nothing_evaluates_are_an_input_error():
    s = Sketch()
    s.node("MatMul", "x", s.node("NoSuchOperator", s.floats(2, 2)))
    with pytest.raises(InputError, match="t0: the nodes that compute this weight cannot be evaluated"):
        running_weights(s.model(shape=("N", 2)))


def test_only_what_was_asked_for_is_evaluated():
    s = Sketch()
    good, bad = s.node("Neg", s.constant(np.float32([1]))), s.node("NoSuchOperator", s.floats(1))
    s.node("Concat", "x", good, bad, axis=0)
    assert constant_tensors(s.model(shape=(1,)), [good])[good] == np.float32(-1)
