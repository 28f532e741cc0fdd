from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelpress.export.errors import ModelError
from modelpress.export.graphs.cleaning.constant_identities import without_constant_identities
from modelpress.export.graphs.initializers import with_initializers
from modelpress.export.graphs.parts import metadata
from modelpress.export.onnx_flavours import int8
from modelpress.export.onnx_flavours.int8_graph import steps_of
from modelpress.export.onnx_flavours.int8_weights import SearchedWeight
from modelpress.export.post_training.calibration import calibrate
from modelpress.export.post_training.rounding import PostTraining, quantize_weight
from modelpress.export.quantized import QuantizedTensor, dense_array
from modelpress.export.runtime import open_session
from tests.helpers.graph_builder import INPUT, GraphBuilder
from tests.helpers.int8_chain import chain, images_for, optimised_operators, with_int8_weights
from tests.helpers.models import small_model
from tests.helpers.samples import quantized, quantized_samples

NODE = helper.make_node
ACTIVATIONS_IN_INTEGERS = {"QuantizeLinear": 1}  # one at the input, and no other float node


def random_weight(rng, *shape):
    return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)


def float_model(model):
    return with_initializers(model.graph, {name: dense_array(t) for name, t in model.tensors.items()})


def planned(model, images=None, **options):
    images = images_for(model) if images is None else images
    return int8.plan(model, calibrate(model, int8.activations_to_calibrate(model), images), **options)


def outputs_of(onnx_model, images):
    session = open_session(onnx_model.SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: images})


def check_int8(model):
    """Emit, check, run; every output near the float one. Returns the operators that run."""
    images = images_for(model)
    emitted = with_int8_weights(planned(model, images))
    onnx.checker.check_model(emitted, full_check=True)
    for found, expected in zip(
        outputs_of(emitted, images), outputs_of(float_model(model), images), strict=True
    ):
        largest = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, atol=0.06 * largest)
        assert np.sqrt(np.mean((found - expected) ** 2)) < 0.015 * largest
    return optimised_operators(emitted)


def residual_network(*, projection):
    """Two residual blocks, the second of half the size behind a projection, or a Slice and a Pad."""
    rng = np.random.default_rng(3)
    builder = GraphBuilder("residual", (3, 8, 8))

    def conv(name, x, c_in, c_out, *, kernel=3, stride=1):
        weight = quantize_weight(
            random_weight(rng, c_out, c_in, kernel, kernel),
            PostTraining(bits=4, sparsity=0.3),
            channel_axis=None,
        )
        weight = replace(weight, channel_scale=rng.uniform(0.5, 2, c_out).astype(np.float32))
        bias = 0.1 * rng.standard_normal(c_out).astype(np.float32)
        return builder.conv(name, x, weight, bias, stride=stride, padding=kernel // 2)

    x = builder.relu(conv("head", INPUT, 3, 8))
    x = builder.relu(builder.add(conv("a2", builder.relu(conv("a1", x, 8, 8)), 8, 8), x))
    y = conv("b2", builder.relu(conv("b1", x, 8, 16, stride=2)), 16, 16)
    if projection:
        shortcut = conv("b3", x, 8, 16, kernel=1, stride=2)
    else:
        shortcut = builder.pad_channels(builder.subsample(x, stride=2), before=4, after=4)
    x = builder.flatten(builder.global_average_pool(builder.relu(builder.add(y, shortcut))))
    x = builder.gemm("fc", x, random_weight(rng, 5, 16), rng.standard_normal(5).astype(np.float32))
    return builder.finish(x, n_outputs=5, metadata={"author": "somebody"})


# Weights


@pytest.mark.parametrize("name", sorted(n for n, t in quantized_samples().items() if t.codes.size))
def test_int8_weights_are_near_the_decoded_ones(name):
    source = quantized_samples()[name]
    weight = SearchedWeight.of(source, channel_axis=source.channel_axis).int8("w0")
    codes, decoded = weight.codes(), source.dequantize().astype(np.float32)
    assert codes.dtype == np.int8
    assert codes.min(initial=0) >= -127
    assert (weight.scale > 0).all()
    np.testing.assert_array_equal(codes[~source.nonzero], 0)
    scale = weight._along_channels(weight.scale)
    assert (np.abs(codes * scale - decoded) <= 0.501 * scale + 1e-6).all()


@pytest.mark.parametrize("flags", ["", "o", "os", "osc", "opc", "c"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_graph_of_cast_mul_add_round_cast_gives_the_same_int8_codes(flags, bits):
    source = quantized((6, 4, 3, 3), bits=bits, flags=flags, seed=bits)
    weight = SearchedWeight.of(source, channel_axis=0).int8("w0")
    shape = (-1, 1, 1, 1)
    tensors = {
        "codes": source.codes,
        "m": np.reshape(weight.multiplier, shape) if np.ndim(weight.multiplier) else weight.multiplier,
        "a": np.reshape(weight.addend, shape) if np.ndim(weight.addend) else weight.addend,
        "kept": source.nonzero,
        "zero": np.int8(0),
    }
    nodes = [
        NODE("Cast", ["codes"], ["f"], to=TensorProto.FLOAT),
        NODE("Mul", ["f", "m"], ["p"]),
        NODE("Add", ["p", "a"], ["s"]),
        NODE("Round", ["s"], ["r"]),
        NODE("Cast", ["r"], ["i"], to=TensorProto.INT8),
        NODE("Where", ["kept", "i", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "codes",
        [],
        [helper.make_tensor_value_info("y", TensorProto.INT8, source.shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    (computed,) = open_session(model.SerializeToString()).run(None, {})
    np.testing.assert_array_equal(computed, weight.codes())


def test_symmetric_codes_become_exact_int8_multiples():
    source = QuantizedTensor(
        np.array([[7, -3, 0, 1]], np.int8), bits=4, scale=np.float32(0.25), channel_scale=np.float32([3.0])
    )
    weight = SearchedWeight.of(source, channel_axis=0).int8("w0")
    assert (weight.multiplier, weight.addend) == (18, 0)
    np.testing.assert_array_equal(weight.codes(), [[126, -54, 0, 18]])
    np.testing.assert_allclose(weight.codes() * weight.scale, source.dequantize(), rtol=1e-6)


def test_an_offset_of_whole_steps_is_exact():
    source = QuantizedTensor(
        np.arange(16, dtype=np.uint8).reshape(1, 16), bits=4, scale=np.float32(0.5), offset=np.float32(-3.5)
    )
    weight = SearchedWeight.of(source, channel_axis=0).int8("w0")
    np.testing.assert_allclose(weight.codes() * weight.scale, source.dequantize(), rtol=1e-6, atol=1e-6)


def test_multiplier_is_scalar_unless_a_channel_factor_is_negative():
    source = quantized((4, 3, 3, 3), flags="os")
    factors = np.array([1.0, 0.5, 2.0, 0.25], np.float32)
    weight = SearchedWeight.of(replace(source, channel_scale=factors), channel_axis=0).int8("w0")
    assert np.shape(weight.multiplier) == np.shape(weight.addend) == ()
    factors = factors * [1, -1, 1, 1]
    turned = SearchedWeight.of(
        replace(source, channel_scale=factors.astype(np.float32)), channel_axis=0
    ).int8("w0")
    np.testing.assert_array_equal(np.sign(turned.multiplier), np.sign(factors))
    np.testing.assert_array_equal(turned.codes()[1], -weight.codes()[1])


def test_weights_of_seven_bits_stay_within_63():
    source = quantized((6, 4, 3, 3), bits=8, flags="o")
    assert np.abs(SearchedWeight.of(source, channel_axis=0, limit=63).int8("w0").codes()).max() <= 63
    dense = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    assert np.abs(SearchedWeight.of(dense, channel_axis=1, limit=63).int8("w0").codes()).max() == 63


def test_common_error_of_a_filter_is_weighed_with_the_scattered_one():
    """Rounding that shifts all weights alike shifts the output by as much as the inputs' mean."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (8, 64)).astype(np.uint8)
    source = QuantizedTensor(codes, bits=4, scale=np.float32(0.1), offset=np.float32(-0.7123))
    weight = SearchedWeight.of(source, channel_axis=0).int8("w0")
    error = weight.codes() * weight.scale[:, None] - source.dequantize()
    assert np.abs(error.mean()) < 0.05 * weight.scale[0]
    assert error.std() < 0.15 * weight.scale[0]  # a finest scale would leave 0.29


def test_a_weight_far_smaller_than_its_bias_does_not_overflow_the_bias():
    builder = GraphBuilder("tiny", (1, 2, 2))
    factors = np.array([1.0, 1e-12, 0.0], np.float32)
    weight = QuantizedTensor(
        np.full((3, 1, 1, 1), 3, np.int8), bits=3, scale=np.float32(0.3), channel_scale=factors
    )
    x = builder.conv("conv", INPUT, weight, np.array([1, 50, -20], np.float32), stride=1, padding=0)
    model = builder.finish(x, n_outputs=3, metadata={})
    images = images_for(model)
    made = planned(model, images)
    biases = [t for t in made.tensors.values() if t.dtype == np.int32]
    assert len(biases) == 1
    (found,) = outputs_of(with_int8_weights(made), images)
    np.testing.assert_allclose(found[:, 1:], np.broadcast_to([[[50]], [[-20]]], found[:, 1:].shape), atol=0.3)


# Activations


def test_zero_is_exact_and_the_range_is_covered():
    for low, high in [(0.0, 6.0), (-1.0, 2.0), (-3.0, 0.0), (-1e-3, 1e3)]:
        steps = steps_of(low, high)
        top = (255 - int(steps.zero_point)) * float(steps.scale)
        assert top <= high + steps.scale
        assert top >= high - steps.scale
        assert (low == 0) <= (steps.zero_point == 0)


# Graphs


@pytest.mark.parametrize("projection", [True, False])
def test_every_node_of_a_residual_network_runs_in_integers(projection):
    model = residual_network(projection=projection)
    assert planned(model).notes == []
    expected = {
        "QLinearConv": 6 if projection else 5,
        "QLinearAdd": 2,
        "QLinearGlobalAveragePool": 1,
        "QGemm": 1,
        "Flatten": 1,
    }
    if not projection:
        expected |= {"Slice": 1, "Pad": 1}
    operators = check_int8(model)
    del operators["Transpose"]  # of integers, to the layout of the kernels
    assert operators == expected | ACTIVATIONS_IN_INTEGERS


def test_seven_bits_give_nearly_the_same_logits():
    model = residual_network(projection=True)
    images = images_for(model)
    (expected,) = outputs_of(float_model(model), images)
    (found,) = outputs_of(with_int8_weights(planned(model, images, reduce_range=True)), images)
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


def test_metadata_names_and_versions_of_the_graph_are_kept():
    model = residual_network(projection=True)
    emitted = with_int8_weights(planned(model))
    assert metadata(emitted) == {"author": "somebody"}
    assert (emitted.ir_version, emitted.opset_import[0].version) == (8, 13)
    made = {name for node in emitted.graph.node for name in node.output}
    assert "head.weight" in made  # the dequantized weight
    assert {"a1", "a3"} <= made
    assert all(tensor.HasField("raw_data") for tensor in emitted.graph.initializer)


def test_equal_scalars_are_stored_once():
    emitted = with_int8_weights(planned(residual_network(projection=True)))
    stored = [(t.data_type, tuple(t.dims), t.raw_data) for t in emitted.graph.initializer if not t.dims]
    assert len(stored) == len(set(stored))


def test_negative_factors_and_exact_zeros_are_kept():
    assert check_int8(small_model())["QLinearConv"] == 1


CONV = NODE("Conv", ["x", "w"], ["a"])
RNG = np.random.default_rng(1)
W = {"w": random_weight(RNG, 4, 3, 1, 1), "v": random_weight(RNG, 2, 4, 3, 3)}
SHAPE = (3, 6, 6)
KINDS = {
    "1-d": (
        [
            NODE("Conv", ["x", "w", "b"], ["a"], pads=[1, 1]),
            NODE("Relu", ["a"], ["r"]),
            NODE("MaxPool", ["r"], ["p"], kernel_shape=[2], strides=[2]),
            NODE("Flatten", ["p"], ["f"]),
            NODE("Gemm", ["f", "g", "c"], ["y"]),
        ],
        {
            "w": random_weight(RNG, 6, 3, 3),
            "b": random_weight(RNG, 6),
            "g": random_weight(RNG, 24, 5),
            "c": random_weight(RNG, 5),
        },
        (3, 8),
        {"QLinearConv": 1, "QGemm": 1, "DequantizeLinear": 0},
    ),
    "3-d": (
        [NODE("Conv", ["x", "w"], ["a"]), NODE("Relu", ["a"], ["r"]), NODE("Conv", ["r", "v", "b"], ["y"])],
        {
            "w": random_weight(RNG, 6, 2, 3, 3, 3),
            "v": random_weight(RNG, 4, 6, 1, 1, 1),
            "b": random_weight(RNG, 4),
        },
        (2, 5, 5, 5),
        {"QLinearConv": 2},
    ),
    "depthwise, clipped": (
        [
            CONV,
            NODE("Clip", ["a", "zero", "six"], ["r"]),
            NODE("Conv", ["r", "d"], ["e"], group=4, pads=[1, 1, 1, 1]),
            NODE("Clip", ["e", "zero", "six"], ["s"]),
            NODE("Conv", ["s", "v"], ["y"]),
        ],
        {
            **W,
            "w": 4 * W["w"],
            "d": random_weight(RNG, 4, 1, 3, 3),
            "zero": np.float32(0),
            "six": np.float32(6),
        },
        SHAPE,
        {"QLinearConv": 3, "Clip": 0},
    ),
    "matrix products": (
        [
            NODE("MatMul", ["x", "w"], ["m"]),
            NODE("Add", ["m", "b"], ["a"]),
            NODE("Relu", ["a"], ["r"]),
            NODE("MatMul", ["r", "v"], ["n"]),
            NODE("Add", ["c", "n"], ["y"]),
        ],
        {
            "w": random_weight(RNG, 8, 16),
            "b": random_weight(RNG, 16),
            "v": random_weight(RNG, 16, 4),
            "c": random_weight(RNG, 4),
        },
        (8,),
        {"QGemm": 2, "DequantizeLinear": 0, "Relu": 0},
    ),
    "matrix products of sequences": (
        [
            NODE("MatMul", ["x", "w"], ["m"]),
            NODE("Add", ["m", "b"], ["a"]),
            NODE("Relu", ["a"], ["r"]),
            NODE("MatMul", ["r", "v"], ["y"]),
        ],
        {"w": random_weight(RNG, 8, 16), "b": random_weight(RNG, 16), "v": random_weight(RNG, 16, 4)},
        (5, 8),
        {"MatMulIntegerToFloat": 2, "Relu": 0},
    ),
    "padding around a zero point": (
        [CONV, NODE("Pad", ["a", "pads"], ["p"]), NODE("Conv", ["p", "v"], ["y"])],
        {**W, "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        SHAPE,
        {"QLinearConv": 2, "Pad": 1},
    ),
    "arithmetic": (
        [
            CONV,
            NODE("Sigmoid", ["a"], ["s"]),
            NODE("Mul", ["a", "s"], ["m"]),
            NODE("LeakyRelu", ["m"], ["l"]),
            NODE("Concat", ["l", "a"], ["k"], axis=1),
            NODE("AveragePool", ["k"], ["p"], kernel_shape=[2, 2]),
            NODE("Conv", ["p", "u"], ["y"]),
        ],
        {**W, "u": random_weight(RNG, 2, 8, 3, 3)},
        SHAPE,
        {"QLinearConv": 2, "QLinearMul": 1, "QLinearConcat": 1, "QLinearAveragePool": 1, "QLinearSigmoid": 1},
    ),
    "an output that is read as well": (
        [CONV, NODE("Relu", ["a"], ["r"]), NODE("Conv", ["r", "v"], ["y"]), NODE("Flatten", ["r"], ["z"])],
        W,
        SHAPE,
        {"QLinearConv": 2},
    ),
    "a shared weight": (
        [
            NODE("Conv", ["x", "w", "b"], ["a"]),
            NODE("Relu", ["a"], ["r"]),
            NODE("Conv", ["r", "w", "c"], ["e"]),
            NODE("Tanh", ["e"], ["t"]),
            NODE("Conv", ["t", "w"], ["y"]),
        ],
        {"w": random_weight(RNG, 3, 3, 1, 1), "b": random_weight(RNG, 3), "c": random_weight(RNG, 3)},
        SHAPE,
        {"QLinearConv": 3, "Tanh": 1},
    ),
    "batch norm": (
        [
            CONV,
            NODE("BatchNormalization", ["a", "gamma", "beta", "mean", "var"], ["n"]),
            NODE("Relu", ["n"], ["r"]),
            NODE("Conv", ["r", "v"], ["y"]),
        ],
        {
            **W,
            "gamma": np.float32([1, -1, 0.5, 2]),
            "beta": random_weight(RNG, 4),
            "mean": random_weight(RNG, 4),
            "var": np.ones(4, np.float32),
        },
        SHAPE,
        {"QLinearConv": 2, "BatchNormalization": 0},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_networks_of_many_kinds_are_right_and_fused(kind):
    nodes, tensors, shape, expected = KINDS[kind]
    outputs = ("y", "r", "a", "z") if "output" in kind else ("y",)
    operators = check_int8(chain(nodes, tensors, shape, outputs))
    assert {name: operators[name] for name in expected} == expected


def test_a_transposed_convolution_stays_in_float_and_is_named():
    nodes = [CONV, NODE("ConvTranspose", ["a", "t"], ["u"]), NODE("Conv", ["u", "v"], ["y"])]
    model = chain(nodes, {**W, "t": random_weight(RNG, 4, 4, 2, 2)}, SHAPE)
    assert "ConvTranspose u stays in float: there is no integer kernel for it here" in planned(model).notes
    assert check_int8(model)["QLinearConv"] == 2


def test_a_scaled_matrix_product_stays_in_float_and_is_named():
    nodes = [
        NODE("Gemm", ["x", "w"], ["a"]),
        NODE("Relu", ["a"], ["r"]),
        NODE("Gemm", ["r", "v", "c"], ["y"], alpha=0.5),
    ]
    tensors = {"w": random_weight(RNG, 8, 16), "v": random_weight(RNG, 16, 4), "c": random_weight(RNG, 4)}
    notes = planned(chain(nodes, tensors, (8,))).notes
    assert any(note.startswith("Gemm y stays in float: its weight is shared") for note in notes)
    check_int8(chain(nodes, tensors, (8,)))


def test_a_graph_inside_a_node_reads_what_it_read():
    def branch(name, read):
        nodes = [NODE("Mul", [read, "w"], [name])]
        return helper.make_graph(
            nodes, name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)]
        )

    nodes = [
        NODE("MatMul", ["x", "w"], ["a"]),
        NODE("Relu", ["a"], ["r"]),
        NODE("MatMul", ["r", "w"], ["e"]),
        NODE("ReduceSum", ["e"], ["total"], keepdims=0),
        NODE("Greater", ["total", "zero"], ["positive"]),
        NODE("If", ["positive"], ["i"], then_branch=branch("p", "r"), else_branch=branch("q", "a")),
        NODE("Add", ["i", "e"], ["y"]),
    ]
    tensors = {"w": random_weight(RNG, 4, 4), "zero": np.float32(0)}
    model = chain(nodes, tensors, (4,))
    del model.graph.graph.output[:]
    model.graph.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4]))
    model.graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    images = images_for(model, n=4)
    (expected,) = outputs_of(float_model(model), images)
    (found,) = outputs_of(with_int8_weights(planned(model, images)), images)
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())


def test_a_layer_that_is_always_zero_leaves_the_others_right():
    nodes = [
        NODE("Conv", ["x", "w", "low"], ["a"]),
        NODE("Relu", ["a"], ["r"]),
        NODE("Conv", ["r", "v", "b"], ["s"]),
        NODE("Relu", ["s"], ["t"]),
        NODE("Conv", ["t", "v", "b"], ["y"]),
    ]
    tensors = {
        "w": W["w"],
        "v": random_weight(RNG, 4, 4, 1, 1),
        "b": random_weight(RNG, 4),
        "low": np.full(4, -100, np.float32),
    }
    assert check_int8(chain(nodes, tensors, SHAPE))["QLinearConv"] == 3


def test_weights_of_half_precision_are_refused():
    model = chain([CONV, NODE("Relu", ["a"], ["y"])], W, SHAPE)
    halves = {name: tensor.astype(np.float16) for name, tensor in model.tensors.items()}
    with pytest.raises(ModelError, match=r"Conv a stays in float: its weight is not float32; take flavour"):
        int8.activations_to_calibrate(replace(model, tensors=halves))


def test_no_dequantized_activation_is_left_unread():
    nodes = [
        NODE("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]),
        NODE("Conv", ["t", "w"], ["a"]),
        NODE("Relu", ["a"], ["r"]),
        NODE("MaxPool", ["r"], ["p"], kernel_shape=[2, 2]),
        NODE("Conv", ["p", "v"], ["y"]),
        NODE("Tanh", ["x"], ["z"]),
    ]
    model = chain(nodes, W, SHAPE, outputs=("y", "z"))
    emitted = with_int8_weights(planned(model))
    read = {name for node in emitted.graph.node for name in node.input} | {"y", "z"}
    assert [node.output[0] for node in emitted.graph.node if node.output[0] not in read] == []
    assert check_int8(model)["QLinearConv"] == 2


def test_a_name_that_is_taken_is_not_given_again():
    nodes = [
        NODE("Conv", ["x", "w0"], ["q0"]),
        NODE("Relu", ["q0"], ["s0"]),
        NODE("Conv", ["s0", "z0"], ["y"]),
    ]
    assert check_int8(chain(nodes, {"w0": W["w"], "z0": W["v"]}, SHAPE))["QLinearConv"] == 2


# Refusals


def test_an_old_opset_is_refused_with_the_way_out():
    model = chain([CONV, NODE("Conv", ["a", "v"], ["y"])], W, SHAPE, opset=12)
    with pytest.raises(ModelError, match=r"opset 12; flavour int8 needs 13 .* flavour float"):
        int8.activations_to_calibrate(model)


def test_a_graph_without_integer_kernels_is_refused():
    model = chain([NODE("Relu", ["x"], ["y"])], {}, SHAPE)
    with pytest.raises(
        ModelError, match=r"nothing in the graph can be computed in int8.*float or weight-only"
    ):
        int8.activations_to_calibrate(model)


def test_missing_and_impossible_ranges_are_refused():
    model = residual_network(projection=True)
    ranges = calibrate(model, int8.activations_to_calibrate(model), images_for(model))
    with pytest.raises(ModelError, match=r"a1: its range is missing"):
        int8.plan(model, {name: r for name, r in ranges.items() if name != "a1"})
    for wrong in [(1.0, 2.0), (0.0, np.inf), (np.nan, 1.0)]:
        with pytest.raises(ModelError, match=r"a1: its range is .* with 0 among them"):
            int8.plan(model, {**ranges, "a1": wrong})


@pytest.mark.parametrize("name", ["w", "b"])
def test_weights_that_are_not_finite_are_refused(name):
    tensors = {"w": W["w"].copy(), "b": np.ones(4, np.float32)}
    model = chain([NODE("Conv", ["x", "w", "b"], ["y"])], tensors, SHAPE)
    ranges = calibrate(model, int8.activations_to_calibrate(model), images_for(model))
    tensors[name].flat[0] = np.nan
    with pytest.raises(ModelError, match=rf"{name}: the (weight|bias) holds NaN"):
        int8.plan(replace(model, tensors=tensors), ranges)


def test_a_bias_behind_an_identity_is_still_a_bias():
    rng = np.random.default_rng(0)
    tensors = {"w": random_weight(rng, 4, 4, 1, 1), "b": rng.standard_normal(4).astype(np.float32)}
    model = chain(
        [
            NODE("Identity", ["b"], ["b1"]),
            NODE("Identity", ["b1"], ["b2"]),
            NODE("Conv", ["x", "w", "b2"], ["c"]),
            NODE("Relu", ["c"], ["r"]),
            NODE("Conv", ["r", "w", "b1"], ["y"]),
        ],
        tensors,
        (4, 6, 6),
    )
    assert check_int8(model)["QLinearConv"] == 2
    assert planned(model).notes == ["y: is read as float, but carries eight bits"]


def test_an_identity_that_makes_an_output_stays():
    rng = np.random.default_rng(0)
    tensors = {"w": random_weight(rng, 4, 4, 1, 1), "b": rng.standard_normal(4).astype(np.float32)}
    nodes = [NODE("Identity", ["b"], ["b1"]), NODE("Conv", ["x", "w", "b1"], ["y"])]
    model = chain(nodes, tensors, (4, 6, 6), outputs=("y", "b1"))
    assert [node.op_type for node in without_constant_identities(model).graph.graph.node] == [
        "Identity",
        "Conv",
    ]
    assert without_constant_identities(small_model()).graph == small_model().graph


def test_operators_that_stay_in_float_for_one_reason_share_a_note():
    rng = np.random.default_rng(0)
    tensors = {"w": random_weight(rng, 4, 4, 1, 1)}
    nodes = [
        NODE("Conv", ["x", "w"], ["c"]),
        NODE("Erf", ["c"], ["d"]),
        NODE("Erf", ["d"], ["e"]),
        NODE("Erf", ["e"], ["y"]),
    ]
    notes = planned(chain(nodes, tensors, (4, 6, 6))).notes
    assert "3 Erf (d and others) stay in float: there is no integer kernel for it here" in notes


def test_a_channel_of_almost_no_weight_stays_almost_silent():
    rng = np.random.default_rng(0)
    builder = GraphBuilder("dead", (3, 8, 8))
    factor = np.array([1, 1, 1, 1e-39], np.float32)
    weight = replace(quantized((4, 3, 3, 3), flags="o", seed=1), channel_scale=factor)
    x = builder.conv("c", INPUT, weight, np.zeros(4, np.float32), stride=1, padding=1)
    second = builder.conv(
        "d", builder.relu(x), random_weight(rng, 4, 4, 1, 1), np.zeros(4, np.float32), stride=1, padding=0
    )
    model = builder.finish(second, n_outputs=4, metadata={})
    del model.graph.graph.output[0].type.tensor_type.shape.dim[:]
    plan = planned(model)
    dead = next(w for w in plan.weights.values() if isinstance(w.source, QuantizedTensor))
    assert np.abs(dead.codes()[3] * dead.scale[3]).max() < 1e-30
    assert np.abs(dead.codes()[:3]).max() > 60


def test_a_name_made_by_folding_is_no_activation():
    rng = np.random.default_rng(0)
    ones = np.ones(4, np.float32)
    tensors = {
        "w": random_weight(rng, 4, 4, 1, 1),
        "v": random_weight(rng, 4, 4, 1, 1),
        "be": ones,
        "g": 2 * ones,
        "z": 0 * ones,
    }
    nodes = [
        NODE("Conv", ["x", "w"], ["c"]),
        NODE("BatchNormalization", ["c", "g", "be", "z", "g"], ["be.folded"]),
        NODE("Conv", ["be.folded", "v", "be"], ["d"]),
        NODE("BatchNormalization", ["d", "g", "be", "be", "g"], ["y"]),
    ]
    check_int8(chain(nodes, tensors, (4, 6, 6)))


def test_a_model_whose_convolutions_all_stay_in_float_says_why():
    rng = np.random.default_rng(0)
    tensors = {"w": random_weight(rng, 4, 4, 1, 1).astype(np.float64)}
    nodes = [
        NODE("Cast", ["x"], ["d"], to=TensorProto.DOUBLE),
        NODE("Conv", ["d", "w"], ["c"]),
        NODE("Conv", ["c", "w"], ["e"]),
        NODE("Cast", ["e"], ["y"], to=TensorProto.FLOAT),
    ]
    with pytest.raises(ModelError, match=r"2 Conv \(c and others\) stay in float: its weight is not float32"):
        int8.activations_to_calibrate(chain(nodes, tensors, (4, 6, 6)))
