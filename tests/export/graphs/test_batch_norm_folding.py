from dataclasses import replace

import numpy as np
import pytest
from onnx import helper

from modelpress.export.graphs.batch_norm import fold_batch_norm
from modelpress.export.graphs.initializers import with_initializers
from modelpress.export.quantized import QuantizedModel, dense_array
from modelpress.export.runtime import open_session
from tests.helpers.int8_chain import chain, images_for
from tests.helpers.samples import quantized

RNG = np.random.default_rng(0)
SHAPE = (3, 5, 5)
NORM = ["gamma", "beta", "mean", "var"]


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def tensors():
    return {
        "w": normal(4, 3, 3, 3),
        "b": normal(4),
        "gamma": np.float32([1, -0.5, 2, 0]),
        "beta": normal(4),
        "mean": normal(4),
        "var": normal(4) ** 2,
    }


def model(*, bias=True, outputs=("y",), **attributes):
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"] if bias else ["x", "w"], ["a"]),
        helper.make_node("BatchNormalization", ["a", *NORM], ["y"], **attributes),
    ]
    return chain(nodes, tensors(), SHAPE, outputs)


def operators(found):
    return [node.op_type for node in found.graph.graph.node]


def outputs_of(found, images):
    arrays = {name: dense_array(tensor) for name, tensor in found.tensors.items()}
    graph = with_initializers(found.graph, arrays)
    return open_session(graph.SerializeToString()).run(None, {"x": images})


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("attributes", [{}, {"epsilon": 0.1}])
@pytest.mark.parametrize("flags", [None, "os", "c", "opc"])
def test_the_function_stays_the_same(bias, attributes, flags):
    whole = model(bias=bias, **attributes)
    if flags is not None:
        whole.tensors["w"] = quantized((4, 3, 3, 3), flags=flags)
    folded = fold_batch_norm(whole)
    assert operators(folded) == ["Conv"]
    assert set(folded.tensors) <= {"w", "b", "beta", "beta.folded"}
    images = images_for(whole)
    np.testing.assert_allclose(outputs_of(folded, images), outputs_of(whole, images), rtol=1e-3, atol=1e-4)
    if flags is not None:
        np.testing.assert_array_equal(folded.tensors["w"].codes, whole.tensors["w"].codes)


def test_a_graph_without_is_left_alone():
    whole = chain([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": normal(4, 3, 3, 3)}, SHAPE)
    assert fold_batch_norm(whole) is whole


def test_what_else_reads_the_convolution_keeps_it():
    whole = model(outputs=("y", "a"))
    assert operators(fold_batch_norm(whole)) == ["Conv", "BatchNormalization"]


def test_a_shared_weight_is_not_scaled():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("BatchNormalization", ["a", *NORM], ["n"]),
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Add", ["n", "c"], ["y"]),
    ]
    assert "BatchNormalization" in operators(fold_batch_norm(chain(nodes, tensors(), SHAPE)))


def test_parameters_that_are_no_constants_stay():
    whole = model()
    left = {name: tensor for name, tensor in whole.tensors.items() if name != "mean"}
    assert operators(fold_batch_norm(replace(whole, tensors=left))) == ["Conv", "BatchNormalization"]


def test_two_norms_may_share_their_parameters():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("BatchNormalization", ["a", *NORM], ["n"]),
        helper.make_node("Conv", ["n", "v"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *NORM], ["y"]),
    ]
    whole = chain(nodes, {**tensors(), "v": normal(4, 4, 1, 1)}, SHAPE)
    folded = fold_batch_norm(whole)
    assert operators(folded) == ["Conv", "Conv"]
    images = images_for(whole)
    np.testing.assert_allclose(outputs_of(folded, images), outputs_of(whole, images), rtol=1e-3, atol=1e-3)
    assert isinstance(folded, QuantizedModel)
