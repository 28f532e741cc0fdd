"""Whole models at a price."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, numpy_helper

from modelpress.export.errors import InputError
from modelpress.export.quantized import QuantizedModel, QuantizedTensor
from modelpress.export.rate.activations import outputs_of
from modelpress.export.rate.divergence import divergence
from modelpress.export.rate.layers import find_layers
from modelpress.export.rate.outcomes import losses_in
from modelpress.export.rate.pricing import Pricing
from modelpress.export.rate.search import highest_price, lowest_price
from modelpress.export.rate.sensitivity import sensitivities
from tests.helpers.foreign_onnx import NODE, every_operator, foreign


def normal(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def dense(model):
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    del model.graph.initializer[:]
    return QuantizedModel(model, tensors)


def of_matrices():
    """Two linear layers; inputs of unequal variance."""
    nodes = [NODE("Gemm", ["x", "w1", "b1"], ["h"]), NODE("Gemm", ["h", "w2"], ["y"])]
    tensors = {"w1": normal(6, 8), "b1": normal(8), "w2": normal(8, 3)}
    return QuantizedModel(foreign(nodes, {}, x=("N", 6), y=("N", 3)), tensors)


def recurrent():
    nodes = [NODE("LSTM", ["x", "w", "r"], ["s", "last"], hidden_size=5), NODE("Squeeze", ["last"], ["y"])]
    tensors = {"w": normal(1, 20, 4), "r": normal(1, 20, 5)}
    return QuantizedModel(foreign(nodes, {}, x=("T", "N", 4), y=("N", 5)), tensors), [normal(6, 9, 4)]


def looked_up():
    nodes = [NODE("Gather", ["table", "x"], ["a"]), NODE("ReduceMean", ["a"], ["m"], axes=[1], keepdims=0)]
    nodes += [NODE("MatMul", ["m", "w"], ["y"])]
    graph = foreign(nodes, {}, x=("N", "L"), y=("N", 3), x_elem=TensorProto.INT64)
    words = np.random.default_rng(0).integers(0, 12, (16, 5))  # of 40: the others never occur
    return QuantizedModel(graph, {"table": normal(40, 8), "w": normal(8, 3)}), [words]


MODELS = {
    "operators": lambda: (dense(every_operator()), [normal(8, 3, 6, 6)]),
    "float16": lambda: (dense(every_operator(np.float16)), [normal(8, 3, 6, 6).astype(np.float16)]),
    "matrices": lambda: (of_matrices(), [normal(50, 6)]),
    "recurrent": recurrent,
    "looked up": looked_up,
}


def pricing(name, *, n_probes=1):
    model, calls = MODELS[name]()
    return Pricing.of(model, [{"x": call} for call in calls], min_elements=1, n_probes=n_probes)


def error_at(priced_model, one):
    return divergence(one.outputs, outputs_of(priced_model, one.feeds)).error


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_rounded_and_a_lower_price_is_nearer(name):
    one = pricing(name)
    errors = []
    for price in (1e-6, 1e-2):
        priced = one.at(price)
        for layer in one.layers:
            assert isinstance(priced.model.tensors[layer.weight], QuantizedTensor)
        assert [outcome.name for outcome in priced.layers] == [layer.weight for layer in one.layers]
        errors.append(error_at(priced.model, one))
    assert errors[0] < 0.05
    assert errors[0] < errors[1] / 4


def test_the_same_price_gives_the_same_bytes():
    left, right = (pricing("operators").at(1e-4).model for _ in range(2))
    assert left.equals(right)


def test_the_estimate_of_a_linear_model_is_what_is_measured():
    one = pricing("matrices")
    one = replace(one, importance={**one.importance, "y": np.full(3, 1 / (3 * np.var(one.outputs[0]["y"])))})
    h = one.outputs[0]["y"]
    assert h.shape == (50, 3)
    priced = one.at(3e-4)
    assert_allclose(error_at(priced.model, one) ** 2, priced.layers[-1].loss, rtol=0.5)


def test_means_of_outputs_are_kept_by_the_bias():
    model = QuantizedModel(
        foreign([NODE("Gemm", ["x", "w", "b"], ["y"])], {}, x=("N", 6), y=("N", 4)),
        {"w": normal(6, 4), "b": normal(4)},
    )
    one = Pricing.of(model, [{"x": normal(40, 6) + 3}], min_elements=1, n_probes=1)
    after = outputs_of(one.at(1e-2).model, one.feeds)[0]["y"]
    assert_allclose(after.mean(0), one.outputs[0]["y"].mean(0), atol=2e-3)


def test_sensitivities_of_a_linear_layer_are_the_squares_of_what_follows():
    model = of_matrices()
    feeds = [{"x": normal(400, 6, seed=k)} for k in range(8)]
    layers, _ = find_layers(model, min_elements=1)
    before = outputs_of(model, feeds)
    found = sensitivities(model, layers, feeds, before)["h"]
    variance = np.var(np.concatenate([call["y"] for call in before]))
    expected = np.square(model.tensors["w2"]).mean(axis=1) / variance
    assert_allclose(found, expected, rtol=0.35)


def test_rows_of_a_table_that_never_occur_are_hardly_paid_for():
    one = pricing("looked up")
    codes = one.at(3e-4).model.tensors["table"].codes
    assert np.mean(codes[12:] != 0) < np.mean(codes[:12] != 0)


def test_a_model_without_weights_is_refused():
    model = QuantizedModel(foreign([NODE("Relu", ["x"], ["y"])], {}), {})
    with pytest.raises(InputError, match="no weight that could be rounded at a price"):
        Pricing.of(model, [{"x": normal(2, 4)}], min_elements=1, n_probes=1)


def test_a_model_whose_outputs_are_numbers_of_classes_is_refused():
    nodes = [NODE("Gemm", ["x", "w"], ["h"]), NODE("ArgMax", ["h"], ["y"], axis=1)]
    graph = foreign(nodes, {}, x=("N", 6), y=("N", 1))
    graph.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(InputError, match="no output of floats"):
        Pricing.of(
            QuantizedModel(graph, {"w": normal(6, 4)}), [{"x": normal(3, 6)}], min_elements=1, n_probes=1
        )


@pytest.mark.parametrize("limit", [20.0, 99.0, 1500.0, 3900.0])
def test_the_lowest_price_of_a_size_is_found_in_few_trials(limit):
    prices = []

    def size(price):
        prices.append(price)
        return 4000 / (1 + price**0.6) + 0.1

    found = lowest_price(size, limit=limit, start=1.0)
    assert found.price is not None
    assert 0.9 * limit <= found.figure <= limit
    assert_allclose(found.figure, size(found.price))
    assert len(prices) <= 9


def test_the_highest_price_of_a_loss_is_found():
    found = highest_price(lambda price: price**0.7, limit=5.0, start=1.0)
    assert found.price is not None
    assert 4.5 <= found.figure <= 5.0


def test_a_size_out_of_reach_is_told_with_the_nearest():
    found = lowest_price(lambda price: 100 + 1 / price, limit=50, start=1.0)
    assert found.price is None
    assert 100 <= found.figure < 101


@pytest.mark.parametrize("text", ["{", "[1]", '{"loss": 3}', '{"loss": ["a"]}', '{"loss": [1e999]}'])
def test_damaged_metadata_say_nothing_of_losses(text):
    assert losses_in({"modelpress.price": text}) == []
