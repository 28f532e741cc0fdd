import math
from functools import partial

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from modelpress.export.errors import InputError
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.passes.quantization_start import QuantizationStart
from modelpress.toolkit.compression.quantization.quantizers import QuantizerSpec
from modelpress.toolkit.compression.rate.file_size import file_size
from modelpress.toolkit.compression.rate.price import RatePrice
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.recipe import FinetuneOptions, PackOptions, Recipe
from modelpress.toolkit.training.interrupt import Interrupted
from modelpress.toolkit.training.rules import Moment
from tests.helpers.command_line import QUICK
from tests.helpers.training import SignalAt, assert_same, fit, weights_of

SPEC = QuantizerSpec(3, symmetric=True, range="mse")
OPTIONS = FinetuneOptions(epochs=12, batch=32, lr=0.05, padding=2)


def priced(options, **given):
    """A small network on 3-bit grids, and the rule that prices its codes by the size of its real file."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 24, 3, stride=4),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(384, 10),
    )
    state = NetworkState(network, None, quantizers={"0": SPEC, "5": SPEC})
    compressed = state.compressed()
    size = partial(file_size, state, compressed, PackOptions(effort="max"))
    options = OPTIONS.model_copy(update={**options, **given})
    return compressed, options, RatePrice(compressed, options, size)


def trained(options, **arguments):
    network, options, rule = priced(options)
    return network, rule, fit(network, options, rules=[rule], **arguments)


def test_the_price_of_a_weight_is_the_slope_between_its_two_codes():
    network = CompressedNetwork(nn.Sequential(nn.Linear(8, 1, bias=False)), masks={}, quantizers={"0": SPEC})
    weight = network.dense_weight("0")
    with torch.no_grad():
        weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 0.4, -1.3, 3.0]]))
        network.renew_grids()
        scale = float(network.grid("0").scale)
    rule = RatePrice(network, FinetuneOptions(rate=8.0), lambda: 1000)
    rule.begin(Moment(0, 0, 1))
    rule.penalty().backward()

    # frequencies of the magnitudes, half a count each before they are seen; a level is never cheaper than a zero
    magnitudes = [min(3, round(abs(float(w)) / scale)) for w in weight[0].tolist()]
    counts = [magnitudes.count(m) + 0.5 for m in range(5)]
    bits = [-math.log2(n / sum(counts)) + (m > 0) for m, n in enumerate(counts)]
    bits = [max(bits[: m + 1]) for m in range(5)]
    share = float(rule.state()["share"])
    for w, slope in zip(weight[0].tolist(), weight.grad[0].tolist(), strict=True):
        below = int(min(3, abs(w) / scale))
        expected = share * (bits[below + 1] - bits[below]) / scale / 1000 if 0 < abs(w) / scale < 3 else 0.0
        assert slope == pytest.approx(math.copysign(expected, w) if w else 0.0, rel=1e-4)


def test_a_price_buys_bytes_and_the_estimate_is_that_of_the_file():
    _, free, _ = trained({"rate": 1e-6})
    network, rule, history = trained({"rate": 3.0})
    sizes = [record.facts["file_bytes"] for record in history]
    assert sizes[-1] < 0.9 * sizes[0]
    assert rule.sparsity() > 2 * free.sparsity()
    for record in history:
        assert record.facts["estimated_bytes"] == pytest.approx(record.facts["file_bytes"], rel=0.03)
    state = NetworkState(network.network, None, quantizers={"0": SPEC, "5": SPEC}, grids=network.kept_grids())
    assert file_size(state, network, PackOptions(effort="max")) == sizes[-1]


def test_a_size_asked_for_is_reached_whatever_the_price():
    _, _, history = trained({"target_bytes": 1900, "epochs": 60, "rate_ramp": 0.6})
    assert history[0].facts["file_bytes"] > 2100
    assert 0.8 * 1900 < history[-1].facts["file_bytes"] <= 1900
    assert history[-1].loss < history[0].loss


def test_weights_that_are_floats_at_first_pay_all_the_same_and_grids_stay():
    network, options, rule = priced({"target_bytes": 1900, "epochs": 40, "rate_ramp": 0.6})
    grids = {name: {k: v.clone() for k, v in kept.items()} for name, kept in network.kept_grids().items()}
    start = QuantizationStart(network, 15, renew=False)
    history = fit(network, options, rules=[start, rule])
    assert history[14].facts["file_bytes"] < 0.95 * history[0].facts["file_bytes"]
    assert 0.8 * 1900 < history[-1].facts["file_bytes"] <= 1900
    for name, kept in network.kept_grids().items():
        assert_same(grids[name], kept)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--epochs", 1, "--set", "finetune.target_bytes=1000"],
            "and not the 1,000 of finetune.target_bytes: train",
        ),
        (["--epochs", 0, "--set", "finetune.target_bytes=1000"], "without epochs it does not"),
    ],
)
def test_a_size_that_is_missed_is_said(tmp_path, call, options, words):
    grid = ["quantize.symmetric=true", "quantize.range=mse", "quantize.learned=false", "quantize.bits=3"]
    settings = [part for each in (*grid, "train.epochs=1", "prune.sparsity=0") for part in ("--set", each)]
    code, _, err = call("run", "-o", tmp_path / "run", "--device", "cpu", *settings, *options, *QUICK)
    assert code == 0, err
    assert words in " ".join(err.split())


def test_the_search_for_a_price_starts_from_the_one_that_is_given():
    _, _, rule = priced({"rate": 0.7, "target_bytes": 1900})
    assert float(rule.state()["price"]) == pytest.approx(0.7)


def test_measuring_the_file_leaves_the_network_as_it_is():
    network, _, rule = priced({"rate": 0.1})
    network.train()
    before = weights_of(network)
    rule.begin(Moment(0, 0, 5))
    assert_same(before, weights_of(network))
    assert network.training


def test_a_stopped_training_keeps_its_price(tmp_path):
    options = {"target_bytes": 1900, "epochs": 4}
    straight, whole, _ = trained(options)
    state = tmp_path / "state.safetensors"
    with pytest.raises(Interrupted):
        trained(options, state_path=state, progress=SignalAt(8))
    resumed, rule, _ = trained(options, state_path=state, resume=True)
    assert_same(weights_of(straight), weights_of(resumed))
    assert_same(dict(whole.state()), dict(rule.state()))


def test_grids_that_move_or_have_no_zero_cannot_be_priced():
    network = CompressedNetwork(nn.Sequential(nn.Linear(8, 2)), masks={}, quantizers={"0": QuantizerSpec(4)})
    with pytest.raises(InputError, match=r"quantize\.symmetric"):
        RatePrice(network, FinetuneOptions(rate=1.0), lambda: 1)
    with pytest.raises(ValidationError, match="whose zero is zero"):
        Recipe.model_validate({"finetune": {"rate": 0.1}})
