import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpress.export.errors import InputError, ModelError
from modelpress.export.onnx_flavours import emit, prepare
from modelpress.export.onnx_flavours.int8 import activations_to_calibrate
from modelpress.export.post_training.calibration import calibrate
from modelpress.export.runtime import open_session, run_batched
from tests.helpers.graph_builder import INPUT, GraphBuilder
from tests.helpers.models import small_model
from tests.helpers.samples import quantized

FLAGS = ["", "p", "c", "pc", "o", "op", "oc", "opc", "os", "osp", "osc", "ospc"]


def network(*, bits=4, flags="os", seed=0):
    """Three convolutions with a residual sum, pooled and classified."""
    rng = np.random.default_rng(seed)
    builder = GraphBuilder("residual", (3, 8, 8))

    def conv(name, x, n_in, n_out):
        weight = quantized((n_out, n_in, 3, 3), bits=bits, flags=flags, seed=rng.integers(99))
        return builder.conv(
            name, x, weight, rng.standard_normal(n_out).astype(np.float32), stride=1, padding=1
        )

    x = builder.relu(conv("head", INPUT, 3, 8))
    x = builder.relu(builder.add(conv("second", builder.relu(conv("first", x, 8, 8)), 8, 8), x))
    x = builder.flatten(builder.global_average_pool(x))
    fc = quantized((5, 8), bits=8, flags="o", seed=3)
    x = builder.gemm("fc", x, fc, np.zeros(5, np.float32))
    return builder.finish(x, n_outputs=5, metadata={})


def images(n=40):
    return np.random.default_rng(0).standard_normal((n, 3, 8, 8)).astype(np.float32)


def ranges_of(model):
    return calibrate(model, activations_to_calibrate(model), images())


def both(model, ranges, *, reduce_range=False):
    return [
        prepare(model, flavour=flavour, ranges=ranges, reduce_range=reduce_range)
        for flavour in ("int8", "int8-sparse")
    ]


def logits(model, ranges, flavour):
    serialised = emit(model, flavour=flavour, ranges=ranges)
    onnx.checker.check_model(serialised, full_check=True)
    return run_batched(open_session(serialised.SerializeToString()), images())


@given(bits=st.integers(2, 8), flags=st.sampled_from(FLAGS), seed=st.integers(0, 5))
def test_weights_stored_as_codes_compute_the_same_logits_bit_for_bit(bits, flags, seed):
    model = network(bits=bits, flags=flags, seed=seed)
    ranges = ranges_of(model)
    plain, packed = (logits(model, ranges, flavour) for flavour in ("int8", "int8-sparse"))
    assert plain.tobytes() == packed.tobytes()


def test_the_runtime_computes_both_in_integers(optimised):
    model = network()
    for flavour in ("int8", "int8-sparse"):
        graph = optimised(emit(model, flavour=flavour, ranges=ranges_of(model))).graph
        operators = [node.op_type for node in graph.node]
        assert operators.count("QLinearConv") == 3
        assert operators.count("QLinearAdd") == 1
        assert not {"Conv", "FusedConv", "Add", "Relu", "DequantizeLinear", "Cast"} & set(operators)


def test_codes_take_less_room_than_bytes():
    model = network(bits=2, flags="os")
    ranges = ranges_of(model)
    plain, packed = (emit(model, flavour=f, ranges=ranges) for f in ("int8", "int8-sparse"))
    weights = {f: sum(len(t.raw_data) for t in m.graph.initializer) for f, m in ((0, plain), (1, packed))}
    assert weights[1] < 0.75 * weights[0]


def test_every_initializer_is_used():
    model = network()
    for flavour in ("int8", "int8-sparse"):
        graph = emit(model, flavour=flavour, ranges=ranges_of(model)).graph
        used = {name for node in graph.node for name in node.input}
        assert [tensor.name for tensor in graph.initializer if tensor.name not in used] == []


def test_weights_of_seven_bits_are_the_same_in_both_stores():
    model = network(bits=8)
    plain, packed = both(model, ranges_of(model), reduce_range=True)
    stored = [t for t in plain.model.tensors.values() if t.dtype == np.int8 and t.ndim]
    assert stored
    assert all(np.abs(t.astype(int)).max() <= 63 for t in stored)
    assert set(packed.model.tensors) != set(plain.model.tensors)


def test_a_float_layer_is_stored_as_bytes_in_both():
    model = network()
    model.tensors["fc.weight"] = model.tensors["fc.weight"].dequantize()
    plain, packed = both(model, ranges_of(model))
    assert any(t.dtype == np.int8 and t.shape == (5, 8) for t in packed.model.tensors.values())
    assert any(t.dtype == np.int8 and t.shape == (5, 8) for t in plain.model.tensors.values())


def test_narrow_codes_are_said_to_become_int8():
    model = network(bits=4)
    _, packed = both(model, ranges_of(model))
    assert any("codes of 4 and 8 bits" in note or "codes of 4 bits" in note for note in packed.notes)


@pytest.mark.parametrize("flavour", ["int8", "int8-sparse"])
def test_a_flavour_without_ranges_says_what_it_needs(flavour):
    with pytest.raises(InputError, match=rf"flavour {flavour} .* must be calibrated on data; .* need none"):
        emit(network(), flavour=flavour)


@pytest.mark.parametrize("flavour", ["int8", "int8-sparse"])
def test_missing_ranges_are_named(flavour):
    ranges = ranges_of(network())
    name = sorted(ranges)[0]
    del ranges[name]
    with pytest.raises(ModelError, match=f"{name}: its range is missing"):
        emit(network(), flavour=flavour, ranges=ranges)


def test_negative_channel_factors_survive():
    model = small_model()
    inputs = np.random.default_rng(1).standard_normal((64, 2, 6, 6)).astype(np.float32)
    ranges = calibrate(model, activations_to_calibrate(model), inputs)
    reference = run_batched(open_session(emit(model, flavour="float").SerializeToString()), inputs)
    found = [
        run_batched(open_session(emit(model, flavour=f, ranges=ranges).SerializeToString()), inputs)
        for f in ("int8", "int8-sparse")
    ]
    assert found[0].tobytes() == found[1].tobytes()
    np.testing.assert_allclose(found[0], reference, atol=0.05 * np.abs(reference).max())
