"""Walks along a graph, and what layers multiply with."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto

from modelpress.export.quantized import QuantizedModel
from modelpress.export.rate.activations import Walk, outputs_of
from modelpress.export.rate.layers import find_layers
from modelpress.export.rate.statistics import Sampler, Statistics, samples
from modelpress.export.runtime import open_decoded, run_feed
from tests.helpers.foreign_onnx import NODE, foreign

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def model_of(nodes, tensors, *, x, y):
    return QuantizedModel(foreign(nodes, {}, x=x, y=y), tensors)


def chain():
    nodes = [
        NODE("Conv", ["x", "w1", "b1"], ["a"], pads=[1, 1, 1, 1]),
        NODE("Relu", ["a"], ["b"]),
        NODE("Conv", ["b", "w2"], ["c"], pads=[1, 1, 1, 1]),
        NODE("Add", ["b", "c"], ["d"]),
        NODE("GlobalAveragePool", ["d"], ["e"]),
        NODE("Flatten", ["e"], ["f"]),
        NODE("Gemm", ["f", "w3"], ["y"]),
    ]
    tensors = {"w1": normal(4, 3, 3, 3), "b1": normal(4), "w2": normal(4, 4, 3, 3), "w3": normal(4, 5)}
    return model_of(nodes, tensors, x=("N", 3, 6, 6), y=("N", 5))


CONVOLUTIONS = [
    ({"pads": [1, 1, 1, 1]}, (6, 4, 3, 3)),
    ({"pads": [0, 1, 2, 0], "strides": [2, 1]}, (6, 4, 3, 2)),
    ({"pads": [2, 2, 2, 2], "dilations": [2, 2]}, (6, 4, 3, 3)),
    ({"group": 2}, (6, 2, 3, 3)),
    ({"group": 4, "pads": [1, 1, 1, 1]}, (8, 1, 3, 3)),
    ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (6, 4, 4, 3)),
    ({"auto_pad": "SAME_LOWER"}, (6, 4, 2, 2)),
    ({"auto_pad": "VALID"}, (6, 4, 2, 2)),
]
PRODUCTS = [
    (NODE("Gemm", ["x", "w"], ["y"], transB=1), (5, 4), ("N", 4), (7, 4)),
    (NODE("Gemm", ["x", "w"], ["y"]), (4, 5), ("N", 4), (7, 4)),
    (NODE("MatMul", ["x", "w"], ["y"]), (4, 5), ("N", 3, 4), (7, 3, 4)),
    (NODE("MatMul", ["w", "x"], ["y"]), (5, 4), ("N", 4, 3), (7, 4, 3)),
]


def products(model, x, channel_axis):
    """The output of a model of one layer, and that of its matrices times its samples; both ``(rows, samples)``."""
    (layer,), reasons = find_layers(model, min_elements=1)
    assert not reasons
    (taken,) = samples(layer, [x], Sampler(1))
    matrices = layer.matrices(np.asarray(model.tensors["w"]))
    assert_array_equal(layer.weight_of(matrices), model.tensors["w"])
    assert layer.n_rows == matrices.shape[0] * matrices.shape[1]
    made = run_feed(open_decoded(model), {"x": x})["y"]
    found = (matrices @ taken.swapaxes(1, 2)).reshape(-1, taken.shape[1])
    return np.moveaxis(made, channel_axis, 0).reshape(len(found), -1), found


@pytest.mark.parametrize(("attributes", "shape"), CONVOLUTIONS)
def test_a_convolution_is_its_matrices_times_its_patches(attributes, shape):
    node = NODE("Conv", ["x", "w"], ["y"], kernel_shape=shape[2:], **attributes)
    model = model_of([node], {"w": normal(*shape)}, x=("N", 4, 7, 9), y=("N", shape[0], "H", "W"))
    expected, found = products(model, normal(3, 4, 7, 9), 1)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("node", "shape", "x", "given"), PRODUCTS)
def test_a_product_is_its_matrix_times_its_vectors(node, shape, x, given):
    model = model_of([node], {"w": normal(*shape)}, x=x, y=("N", *["M"] * (len(x) - 1)))
    expected, found = products(model, normal(*given), -2 if node.input[0] == "w" else -1)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_walk_computes_what_the_whole_model_does():
    model, feeds = chain(), [{"x": normal(2, 3, 6, 6)} for _ in range(3)]
    walk = Walk(model.graph, feeds)
    for name in ("x", "b", "f", "y"):
        walked = walk.to(name, model.tensors)
        assert len(walked) == 3
    for value, call in zip(walked, outputs_of(model, feeds), strict=True):
        assert_allclose(value, call["y"], rtol=1e-5, atol=1e-6)


def test_weights_before_the_walk_count_no_more_and_those_after_it_do():
    model, feeds = chain(), [{"x": normal(2, 3, 6, 6)}]
    walk = Walk(model.graph, feeds)
    walk.to("b", model.tensors)
    other = {**model.tensors, "w1": normal(4, 3, 3, 3), "w3": normal(4, 5)}
    (walked,) = walk.to("y", other)
    (expected,) = outputs_of(QuantizedModel(model.graph, {**other, "w1": model.tensors["w1"]}), feeds)
    assert_allclose(walked, expected["y"], rtol=1e-5, atol=1e-6)


def test_a_walk_without_room_keeps_fewer_calls():
    model, feeds = chain(), [{"x": normal(2, 3, 6, 6)} for _ in range(4)]
    one_call = 2 * 4 * 6 * 6 * 4
    walk = Walk(model.graph, feeds, memory=2 * one_call)
    assert len(walk.to("b", model.tensors)) == 2
    assert len(walk.to("y", model.tensors)) == 2


def test_statistics_are_those_of_all_samples():
    first, second = normal(1, 50, 4), normal(1, 50, 4)
    sums = Statistics()
    for part in (slice(0, 20), slice(20, 50)):
        sums.add(first[:, part], second[:, part])
    mean, seen, square, cross = sums.centred(free_bias=True)
    assert_allclose(mean[0], first[0].mean(0), atol=1e-6)
    assert_allclose(seen[0], second[0].mean(0), atol=1e-6)
    assert_allclose(square[0], np.cov(second[0].T, bias=True), atol=1e-5)
    both = np.cov(first[0].T, second[0].T, bias=True)
    assert_allclose(cross[0], both[:4, 4:], atol=1e-5)


def test_weights_that_cannot_be_priced_are_named_with_the_reason():
    nodes = [
        NODE("Gather", ["table", "x"], ["a"]),
        NODE("Transpose", ["table"], ["t"], perm=[1, 0]),
        NODE("MatMul", ["a", "t"], ["b"]),
        NODE("Mul", ["b", "factor"], ["y"]),
    ]
    graph = foreign(nodes, {}, x=("N", "L"), y=("N", "L", 9), x_elem=TensorProto.INT64)
    model = QuantizedModel(graph, {"table": normal(9, 4), "factor": normal(9, 9)})
    layers, reasons = find_layers(model, min_elements=1)
    assert not layers
    assert reasons == {
        "table": "several nodes read it",
        "factor": "Mul is not known to multiply with it",
    }
