"""Channels that can be removed, and those that cannot, on the smallest graphs that have them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import parser

from modelpress.export.graphs.channels.following import followed
from modelpress.export.graphs.channels.shrinking import without_dead_channels
from modelpress.export.graphs.check import check_graph
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, dense_array
from modelpress.export.runtime import open_decoded, run_feed

HEAD = '<ir_version: 8, opset_import: ["": 17]> g '
IMAGE, PLAIN = "(float[N, 3, 6, 6] x) => (float[N, 4, M, M] y)", "(float[N, 3, 6, 6] x) => (float[N, 4] y)"
DEAD = 1  # the channel that tests remove


def weight(*shape, dead=(), seed=0):
    """Random, with some rows zero."""
    array = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    array[list(dead)] = 0
    return array


def model_of(signature, body, **tensors):
    return QuantizedModel(parser.parse_model(f"{HEAD}{signature} {{ {body} }}"), tensors)


def shrunk(model):
    """The smaller model, after it has been seen to compute the same."""
    found = without_dead_channels(model)
    feed = {"x": np.random.default_rng(1).standard_normal((2, 3, 6, 6)).astype(np.float32)}
    expected, outputs = (run_feed(open_decoded(m), feed)["y"] for m in (model, found.model))
    assert np.ptp(expected, axis=0).max() > 0.02
    assert_allclose(outputs, expected, atol=1e-5 * np.abs(expected).max())
    assert check_graph(found.model) is None
    return found.model


def shapes(model, *names):
    return [model.tensors[name].shape for name in names]


def chain(bias, *, padding=0, between="h = Relu(c)"):
    pads = f"pads = [{', '.join([str(padding)] * 4)}]"
    body = f"c = Conv(x, a, b) {between} y = Conv <{pads}> (h, d, e)"
    tensors = {"a": weight(5, 3, 1, 1, dead=[DEAD]), "d": weight(4, 5, 3, 3, seed=2), "e": weight(4, seed=3)}
    shift = weight(5, seed=4)
    shift[DEAD] = bias
    return model_of(IMAGE, body, **tensors, b=shift)


@pytest.mark.parametrize("bias", [0.7, 0.0, -0.7])
def test_a_dead_channel_goes_and_its_constant_moves_into_the_next_bias(bias):
    model = chain(bias)
    small = shrunk(model)
    assert small.tensors["a"].shape == (4, 3, 1, 1)
    assert small.tensors["d"].shape == (4, 4, 3, 3)
    assert "b" in small.tensors
    assert ("e" in small.tensors) == (bias <= 0)
    assert model.tensors["a"].shape == (5, 3, 1, 1)


@pytest.mark.parametrize(("bias", "left"), [(0.7, 5), (0.0, 4), (-0.7, 4)])
def test_before_padding_only_a_channel_of_zeros_goes(bias, left):
    assert len(shrunk(chain(bias, padding=1)).tensors["a"]) == left


@pytest.mark.parametrize(
    ("between", "left"),
    [
        ("h = Sigmoid(c)", 4),
        ("h = MaxPool <kernel_shape = [2, 2]> (c)", 4),
        ("s = Softmax <axis = 1> (c) h = Relu(s)", 5),
        ("h, k = TopK <axis = 1> (c, n)", 5),
        ("t = Transpose <perm = [0, 2, 3, 1]> (c) h = Transpose <perm = [0, 3, 1, 2]> (t)", 4),
        ("m = ReduceMean <axes = [1]> (c) h = Sub(c, m)", 5),
        ("m = GlobalAveragePool(c) s = Sigmoid(m) h = Mul(c, s)", 4),
        (
            "k = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> () "
            'h = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (c, , k)',
            4,
        ),
        ('k = Constant <value = int64[4] {2, 5, 9, 9}> () h = Resize <mode = "cubic"> (c, , , k)', 4),
        (
            "s = Shape(c) i = Constant <value = int64[1] {0}> () j = Constant <value = int64[1] {2}> () "
            "n = Slice(s, i, j, i) k = Constant <value = int64[2] {9, 9}> () z = Concat <axis = 0> (n, k) "
            "h = Resize (c, , , z)",
            4,
        ),
        (
            "s = Shape(c) i = Constant <value = int64[1] {0}> () n = Gather(s, i) "
            "k = Constant <value = int64[3] {5, 9, 9}> () z = Concat <axis = 0> (n, k) h = Resize (c, , , z)",
            4,
        ),
        (
            "s = Shape(c) i = Constant <value = int64[1] {1}> () n = Gather(s, i) m = Cast <to = 1> (n) h = Mul(c, m)",
            5,
        ),
        ('h = AveragePool <kernel_shape = [3, 3], auto_pad = "SAME_UPPER", count_include_pad = 1> (c)', 5),
        ('h = AveragePool <kernel_shape = [3, 3], auto_pad = "SAME_UPPER"> (c)', 4),
    ],
)
def test_operators_between_keep_channels_apart_or_mix_them(between, left):
    model = chain(0.7, between=between)
    if "TopK" in between:
        model = QuantizedModel(model.graph, {**model.tensors, "n": np.array([5])})
    assert len(shrunk(model).tensors["a"]) == left


def test_a_channel_that_nothing_reads_goes():
    model = chain(0.7, padding=1)
    alive = {**model.tensors, "a": weight(5, 3, 1, 1), "d": weight(4, 5, 3, 3, seed=2)}
    alive["d"][:, DEAD] = 0
    assert len(shrunk(QuantizedModel(model.graph, alive)).tensors["a"]) == 4


def test_channels_of_the_output_stay_and_a_layer_keeps_one():
    model = chain(0.0)
    dead = {**model.tensors, "a": weight(5, 3, 1, 1, dead=range(1, 5)), "b": np.zeros(5, np.float32)}
    dead["d"][2] = 0
    dead["e"][2] = 0
    assert shapes(shrunk(QuantizedModel(model.graph, dead)), "a", "d") == [(1, 3, 1, 1), (4, 1, 3, 3)]

    nothing = {**dead, "a": np.zeros((5, 3, 1, 1), np.float32)}
    found = without_dead_channels(QuantizedModel(model.graph, nothing)).model
    assert len(found.tensors["a"]) == 1


@pytest.mark.parametrize(("dead", "left"), [((), 5), ((DEAD,), 4)])
def test_an_addition_removes_what_is_dead_on_both_sides(dead, left):
    body = "p = Conv(x, a) q = Conv(x, b) s = Add(p, q) y = Conv(s, d)"
    tensors = {"a": weight(5, 3, 1, 1, dead=[DEAD]), "b": weight(5, 3, 1, 1, dead=dead, seed=5)}
    small = shrunk(model_of(IMAGE, body, **tensors, d=weight(4, 5, 3, 3)))
    assert [len(small.tensors[name]) for name in "ab"] == [left, left]


def test_concatenation_and_flattening_place_channels():
    body = "p = Conv(x, a) q = Conv(x, b) s = Concat <axis = 1> (p, q) f = Flatten(s) y = Gemm <transB = 1> (f, d)"
    tensors = {"a": weight(2, 3, 5, 5, dead=[DEAD]), "b": weight(3, 3, 5, 5, dead=[0], seed=5)}
    small = shrunk(model_of(PLAIN, body, **tensors, d=weight(4, 20)))
    assert shapes(small, "a", "b", "d") == [(1, 3, 5, 5), (2, 3, 5, 5), (4, 12)]


@pytest.mark.parametrize(("dead", "left"), [((0, 1), 4), ((1, 2), 6)])
def test_groups_of_a_convolution_go_as_a_whole(dead, left):
    body = "p = Conv(x, a) q = Conv <group = 3> (p, b) y = Conv(q, d)"
    tensors = {"a": weight(6, 3, 1, 1, dead=dead), "b": weight(6, 2, 3, 3, dead=dead)}
    small = shrunk(model_of(IMAGE, body, **tensors, d=weight(4, 6, 1, 1)))
    assert shapes(small, "a", "b", "d") == [(left, 3, 1, 1), (left, 2, 3, 3), (4, left, 1, 1)]


def test_depthwise_split_padded_and_reshaped_channels_follow():
    body = """
        p = Conv(x, a) q = Conv <group = 4, pads = [1, 1, 1, 1]> (p, b)
        pads = Constant <value = int64[8] {0, 1, 0, 0, 0, 1, 0, 0}> () w = Pad(q, pads)
        parts = Constant <value = int64[2] {2, 4}> () l, r = Split <axis = 1> (w, parts)
        shape = Constant <value = int64[3] {0, 4, 36}> () f = Reshape(r, shape)
        m = ReduceMean <axes = [2], keepdims = 0> (f) n = ReduceMean <axes = [2, 3], keepdims = 0> (l)
        g = Gemm(m, d) k = Gemm(n, e) y = Add(g, k)
    """
    tensors = {"a": weight(4, 3, 1, 1, dead=[DEAD]), "b": weight(4, 1, 3, 3, dead=[DEAD])}
    small = shrunk(model_of(PLAIN, body, **tensors, d=weight(4, 4), e=weight(2, 4)))
    # the two padded channels are zero, the dead one is the third of six
    assert shapes(small, "a", "b", "d", "e") == [(3, 3, 1, 1), (3, 1, 3, 3), (2, 4), (1, 4)]


def test_linear_layers_over_the_last_axis_make_up_for_constants():
    body = """
        t = Transpose <perm = [0, 2, 3, 1]> (x) p = MatMul(t, a) h = Add(p, b) s = Sigmoid(h) q = MatMul(s, d)
        r = ReduceMean <axes = [1, 2], keepdims = 0> (q) y = Identity(r)
    """
    a = weight(3, 5)
    a[:, DEAD] = 0
    small = shrunk(model_of(PLAIN, body, a=a, b=weight(5), d=weight(5, 4)))
    assert shapes(small, "a", "b", "d") == [(3, 4), (4,), (4, 4)]


def test_layers_that_share_a_weight_shrink_together():
    body = "p = Conv(x, a) q = Conv(p, c) r = Conv(q, c) y = Conv(r, d)"
    shared = weight(5, 5, 1, 1, dead=[DEAD])
    tensors = {"a": weight(5, 3, 1, 1, dead=[DEAD]), "c": shared, "d": weight(4, 5, 1, 1)}
    assert shapes(shrunk(model_of(IMAGE, body, **tensors)), "a", "c") == [(4, 3, 1, 1), (4, 4, 1, 1)]


@pytest.mark.parametrize("dead", [(DEAD,), ()])
def test_codes_and_scales_of_channels_go_with_them(dead):
    model = chain(0.7)
    codes = np.random.default_rng(0).integers(1, 7, (5, 3, 1, 1)).astype(np.int8)
    codes[list(dead)] = 0
    scale = np.linspace(0.5, 1, 5, dtype=np.float32)
    tensor = QuantizedTensor(codes, bits=4, scale=scale, channel_scale=-scale)
    found = shrunk(QuantizedModel(model.graph, {**model.tensors, "a": tensor})).tensors["a"]
    left = np.delete(np.arange(5), dead)
    assert_array_equal(dense_array(found), tensor.dequantize()[left])
    assert_array_equal(found.scale, scale[left])


@pytest.mark.parametrize(
    ("end", "left"), [("r = Relu(s) y = Sigmoid(r)", 1), ("y = Neg(s)", 1), ("y = Relu(s)", 2)]
)
@pytest.mark.parametrize("summands", ["d, h", "h, d"])
def test_a_branch_that_adds_nothing_goes_with_its_addition(summands, end, left):
    body = f"i = Conv(x, a, b) h = Relu(i) c = Conv(h, u) k = Relu(c) d = Conv(k, v, e) s = Add({summands}) {end}"
    tensors = {"a": weight(4, 3, 1, 1), "b": weight(4, seed=1), "v": weight(4, 5, 1, 1, seed=2)}
    dead = {"u": weight(5, 4, 1, 1, dead=range(5)), "e": weight(4, dead=range(4))}
    small = shrunk(model_of(IMAGE, body, **tensors, **dead))
    assert sorted(small.tensors) == ["a", "b"]
    operators = [node.op_type for node in small.graph.graph.node]
    assert operators[:2] == ["Conv", "Relu"]
    assert "Add" not in operators
    assert operators.count("Relu") == left  # the one that makes the output keeps its name


def test_what_a_branch_adds_to_the_output_itself_or_as_a_constant_stays():
    body = "h = Conv(x, a) c = Conv(h, u) d = Conv(c, v, e) y = Add(d, h)"
    tensors = {
        "a": weight(4, 3, 1, 1),
        "u": weight(5, 4, 1, 1, dead=range(5)),
        "v": weight(4, 5, 1, 1, seed=2),
    }
    for shift in (weight(4, dead=range(4)), weight(4, seed=3)):
        small = shrunk(model_of(IMAGE, body, **tensors, e=shift))
        assert small.tensors["u"].shape == (1, 4, 1, 1)
        assert [node.op_type for node in small.graph.graph.node] == ["Conv", "Conv", "Conv", "Add"]


def test_nothing_to_remove_gives_the_very_model():
    model = chain(0.0)
    model = QuantizedModel(model.graph, {**model.tensors, "a": weight(5, 3, 1, 1)})
    assert without_dead_channels(model).model is model


@pytest.mark.parametrize(("dead", "left"), [([1], 4), ([1, 3], 2), ([0, 1, 2, 3], 2)])
def test_equal_parts_stay_equal_where_a_node_does_not_write_them_down(dead, left):
    body = "p = Conv(x, a) l, r = Split <axis = 1> (p) q = Conv(l, b) s = Conv(r, c) y = Add(q, s)"
    tensors = {"a": weight(4, 3, 1, 1, dead=dead), "b": weight(4, 2, 1, 1), "c": weight(4, 2, 1, 1, seed=2)}
    model = model_of(IMAGE, body, **tensors)
    small = shrunk(model) if len(dead) < 4 else without_dead_channels(model).model
    assert shapes(small, "a", "b", "c") == [(left, 3, 1, 1), (4, left // 2, 1, 1), (4, left // 2, 1, 1)]


def test_slices_of_channels_follow_what_is_left_of_them():
    body = """
        p = Conv(x, a) one = Constant <value = int64[1] {1}> () zero = Constant <value = int64[1] {0}> ()
        two = Constant <value = int64[1] {2}> () end = Constant <value = int64[1] {9223372036854775807}> ()
        l = Slice(p, zero, two, one) r = Slice(p, two, end, one, one) q = Conv(l, b) s = Conv(r, c) y = Add(q, s)
    """
    tensors = {"a": weight(5, 3, 1, 1, dead=[1, 4]), "b": weight(4, 2, 1, 1), "c": weight(4, 3, 1, 1, seed=2)}
    small = shrunk(model_of(IMAGE, body, **tensors))
    assert shapes(small, "a", "b", "c") == [(3, 3, 1, 1), (4, 1, 1, 1), (4, 2, 1, 1)]


def test_a_split_of_space_keeps_the_channels():
    body = "p = Conv(x, a) l, r = Split <axis = 3> (p) h = Add(l, r) y = Conv(h, b)"
    tensors = {"a": weight(5, 3, 1, 1, dead=[DEAD]), "b": weight(4, 5, 1, 1)}
    assert shapes(shrunk(model_of(IMAGE, body, **tensors)), "a", "b") == [(4, 3, 1, 1), (4, 4, 1, 1)]


@pytest.mark.parametrize(
    "between",
    [
        "s = Shape(c) i = Constant <value = int64[1] {9}> () n = Gather(s, i) m = Cast <to = 1> (n) h = Mul(c, m)",
        "k = Constant <value = float[2] {1.0, 2.0}> () h = Resize (c, , k)",
        "k = Constant <value = int64[1] {9}> () h = Resize (c, , , k)",
        "i = Constant <value = int64[1] {0}> () j = Constant <value = int64[2] {5, 9}> () h = Slice(c, i, j, j)",
        "k = Constant <value = int64[2] {7, -2}> () h, g = Split <axis = 1> (c, k)",
    ],
)
def test_what_no_runtime_would_take_is_left_alone(between):
    model = chain(0.7, between=between)
    assert without_dead_channels(model).model is model


@pytest.mark.parametrize(("evenly", "n_groups"), [(False, 4), (True, 2)])
def test_halves_lose_the_same_channels_whatever_their_order_and_number(evenly, n_groups):
    body = """
        p = Conv(x, a) one = Constant <value = int64[1] {1}> () zero = Constant <value = int64[1] {0}> ()
        two = Constant <value = int64[1] {2}> () four = Constant <value = int64[1] {4}> ()
        r = Slice(p, two, four, one) l = Slice(p, zero, two, one) k = Slice(p, zero, two, one)
        q = Conv(l, b) s = Conv(r, c) t = Conv(k, d) u = Add(q, s) y = Add(u, t)
    """
    readers = {name: weight(4, 2, 1, 1) for name in "bcd"}
    trace = followed(model_of(IMAGE, body, a=weight(4, 3, 1, 1), **readers), evenly=evenly)
    assert len(set(trace.groups.roots(trace.channels["p"].slots).tolist())) == n_groups
