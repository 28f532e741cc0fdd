"""Weights rounded at a price per bit, on the network itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from modelpress.export.errors import InputError
from modelpress.export.graphs.parts import metadata
from modelpress.export.post_training.calibration import calls_of
from modelpress.export.press.writing import encode_artifact
from modelpress.export.quantized import QuantizedTensor
from modelpress.export.rate.activations import outputs_of
from modelpress.export.rate.divergence import divergence
from modelpress.toolkit.compression.freeze import freeze_state
from modelpress.toolkit.compression.run import compress
from modelpress.toolkit.compression.state import InputContract, NetworkState
from modelpress.toolkit.compression.work import Work
from modelpress.toolkit.data.own_calibration import calibration_of
from modelpress.toolkit.recipe import Recipe
from tests.helpers.training import CPU, DIGITS, tiny_network

IMAGES = replace(
    DIGITS, train=DIGITS.train.take(np.arange(96)), validation=DIGITS.validation.take(np.arange(20))
)


def recipe_of(epochs=0, **quantize):
    sections = {
        "data": {"validation": 0.0},
        "prune": {"sparsity": 0},
        "quantize": {"layers": {}, **quantize},
        "finetune": {"epochs": epochs, "batch": 32, "lr": 0.001, "padding": 2},
        "calibrate": {"images": 64},
    }
    return Recipe.model_validate(sections)


def dense():
    network = tiny_network().network
    torch.manual_seed(1)
    for tensor in (network[1].running_mean, network[1].running_var, network[1].weight):
        torch.nn.init.uniform_(tensor, 0.5, 1.5)
    return NetworkState(network.eval(), None, contract=InputContract.of(IMAGES))


def priced(epochs=0, **quantize):
    return compress(dense(), Work(recipe=recipe_of(epochs, **quantize), data=IMAGES, device=CPU))


def error_of(state):
    models = [freeze_state(each) for each in (dense(), state)]
    images = calibration_of(IMAGES, metadata(models[0].graph), n_examples=64)
    return divergence(*(outputs_of(model, calls_of(model, images, batch=64)) for model in models)).error


def test_codes_of_the_graph_are_those_of_the_network():
    state = priced(price=1e-5)
    codes = [t for t in freeze_state(state).tensors.values() if isinstance(t, QuantizedTensor)]
    assert {name: spec.bits for name, spec in state.quantizers.items()} == state.history["quantize"]
    assert [t.bits for t in codes] == list(state.history["quantize"].values())
    assert error_of(state) < 0.1


def test_a_size_is_kept():
    state = priced(price_bytes=1000)
    assert len(encode_artifact(freeze_state(state), effort="default")) <= 1000
    assert error_of(state) < 0.5


def test_zeros_stay_while_the_rest_is_trained_on_its_grid():
    before, after = priced(price=1e-4), priced(1, price=1e-4)
    zeros = before.network[0].weight == 0
    assert 0.1 < zeros.float().mean() < 0.9
    trained = after.compressed().effective_weight("0")
    assert (trained[zeros] == 0).all()
    assert not torch.equal(after.network[0].weight, before.network[0].weight)
    assert torch.equal(after.grids["0"]["scale"], before.grids["0"]["scale"])


def test_exceptions_of_a_recipe_have_no_price():
    state = priced(price=1e-4, layers={"role:last": "float"})
    assert list(state.quantizers) == ["0"]
    with pytest.raises(InputError, match="leaves no layer"):
        priced(price=1e-4, layers={"*": 4})


def test_batch_norm_is_measured_anew_only_where_the_outputs_come_closer():
    for price in (1e-5, 1e-2):
        kept, offered = priced(price=price), priced(price=price, batch_norm_images=64)
        assert ("batch_norm" in offered.history) == (error_of(offered) < error_of(kept))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"quantize": {"price": 1e-5}}, "set prune.sparsity to 0"),
        ({"quantize": {"price": 1e-5, "after": 1}}, "set after to 0"),
        ({"quantize": {"price": 1e-5, "price_bytes": 100}}, "give one of them"),
    ],
)
def test_a_price_that_does_not_fit_the_recipe_is_refused(sections, message):
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate(sections)
