import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from modelpress.benchmarks.records import read_results
from modelpress.export.press.reading import read_artifact
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.network_file import load_network
from modelpress.toolkit.compression.pruning.coupling import coupling_of
from modelpress.toolkit.compression.pruning.lasso_groups import ChannelGroups
from modelpress.toolkit.compression.pruning.proximal import ProximalStep, penalty_at
from modelpress.toolkit.compression.pruning.removal import prunable_layers
from modelpress.toolkit.compression.pruning.shrinking import narrowed
from modelpress.toolkit.compression.pruning.subgradient import SubgradientPenalty, count_small
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.networks.inputs import Inputs
from modelpress.toolkit.networks.layers import weight_layers
from modelpress.toolkit.recipe import ModelOptions, PruneOptions, TrainingOptions
from modelpress.toolkit.sparse_regression.prox import trimmed_soft_threshold
from modelpress.toolkit.training.interrupt import Interrupted
from modelpress.toolkit.training.rules import Moment
from tests.helpers.command_line import QUICK, one_line
from tests.helpers.networks import shaken
from tests.helpers.training import SignalAt, assert_same, fit, weights_of
from tests.toolkit.compression.test_removed_channels import residual

METHODS = ["proximal-l1", "trimmed-l1", "group-lasso"]
OPTIONS = TrainingOptions(epochs=3, batch=32, lr=0.02, padding=2)


def tiny_network():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 12, 3, stride=4),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, 10),
    )
    return CompressedNetwork(network, masks={}, quantizers={})


def rule_for(network, method, **options):
    layers = weight_layers(network.network)
    kind = SubgradientPenalty if method == "l1-subgradient" else ProximalStep
    penalty = 40.0 if method == "group-lasso" else 3.0  # in units of a layer's weights
    return kind(layers, PruneOptions(method=method, **{"sparsity": 0.5, "penalty": penalty, **options}))


def zeros(network):
    return {name: w.detach() == 0 for name, w in weight_layers(network.network).items()}


@pytest.mark.parametrize("method", METHODS)
def test_training_reaches_the_sparsity_and_ends_the_penalty_there(method):
    network = tiny_network()
    rule = rule_for(network, method)
    history = fit(network, OPTIONS, rules=[rule])
    reached = [record.sparsity for record in history]
    assert reached[0] < reached[-1]
    n_zeros = sum(int(z.sum()) for z in zeros(network).values())
    total = sum(z.numel() for z in zeros(network).values())
    assert rule.sparsity() == n_zeros / total
    if method != "group-lasso":
        assert n_zeros == round(0.5 * total)
    else:  # up to one channel more
        assert 0 <= n_zeros - round(0.5 * total) < 48
        for weight in weight_layers(network.network).values():
            rows = (weight != 0).flatten(1)
            assert bool((rows.any(dim=1) == rows.all(dim=1)).all())


@pytest.mark.parametrize("method", METHODS)
def test_zeros_are_held_and_the_rest_is_free_once_there_are_enough(method):
    network = tiny_network()
    rule = rule_for(network, method)
    fit(network, OPTIONS, rules=[rule])
    held, before = zeros(network), weights_of(network)
    rule.begin(Moment(OPTIONS.epochs, 0, 5))
    with torch.no_grad():
        for weight in weight_layers(network.network).values():
            weight.add_(0.01)
    rule.after_step(0.02, 1.0)
    for name, weight in weight_layers(network.network).items():
        assert torch.equal(weight == 0, held[name])
        before_step = before[f"network.{name}.weight"]
        assert torch.equal(weight[~held[name]], before_step[~held[name]] + 0.01)  # no threshold any more


def test_one_step_is_the_published_operator():
    network = tiny_network()
    layers = weight_layers(network.network)
    before = np.concatenate([w.detach().double().numpy().ravel() for w in layers.values()])
    rule = rule_for(network, "trimmed-l1", sparsity=0.7, penalty=2.0, penalty_warmup=0.5)
    rule.after_step(0.01, 0.25)
    after = np.concatenate([w.detach().numpy().ravel() for w in layers.values()])
    kept = before.size - round(0.7 * before.size)
    assert_allclose(after, trimmed_soft_threshold(before, 0.01 * 2.0 * 0.5, kept), atol=1e-7)


def test_the_penalty_rises_and_stays():
    options = PruneOptions(penalty=0.2, penalty_warmup=0.5)
    assert [penalty_at(options, p) for p in (0, 0.25, 0.5, 1)] == [0, 0.1, 0.2, 0.2]
    assert penalty_at(PruneOptions(penalty=0.2, penalty_warmup=0), 0) == 0.2


def test_the_subgradient_makes_weights_small_and_none_zero():
    """Where the proximal step of the same strength has its zeros."""
    free, penalised = tiny_network(), tiny_network()
    fit(free, OPTIONS)
    rule = rule_for(penalised, "l1-subgradient", penalty=0.1, penalty_warmup=0.0)
    history = fit(penalised, OPTIONS, rules=[rule])
    assert [record.sparsity for record in history] == [0.0] * OPTIONS.epochs
    assert all(bool(mask.all()) for mask in rule.masks().values())
    norms = [
        sum(float(w.detach().abs().sum()) for w in weight_layers(network.network).values())
        for network in (penalised, free)
    ]
    assert norms[0] < 0.5 * norms[1]
    assert count_small(weight_layers(penalised.network)) > count_small(weight_layers(free.network))


def test_the_gradient_of_the_subgradient_method_is_the_sign():
    network = tiny_network()
    rule = rule_for(network, "l1-subgradient", penalty=0.5, penalty_warmup=0.5)
    assert rule.penalty().item() == 0
    rule.after_step(0.02, 0.25)
    rule.penalty().backward()
    for weight in weight_layers(network.network).values():
        assert torch.equal(weight.grad, 0.25 * weight.sign())


@pytest.mark.parametrize("stop_after", [3, 9, 13])
@pytest.mark.parametrize("method", [*METHODS, "l1-subgradient"])
def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path, method, stop_after):
    straight = tiny_network()
    whole = fit(straight, OPTIONS, rules=[rule_for(straight, method)])
    state = tmp_path / "state.safetensors"
    stopped = tiny_network()
    with pytest.raises(Interrupted):
        fit(
            stopped,
            OPTIONS,
            rules=[rule_for(stopped, method)],
            state_path=state,
            progress=SignalAt(stop_after),
        )
    resumed = tiny_network()
    history = fit(resumed, OPTIONS, rules=[rule_for(resumed, method)], state_path=state, resume=True)
    assert_same(weights_of(straight), weights_of(resumed))
    assert [r.sparsity for r in history] == [r.sparsity for r in whole]


def test_a_kept_weight_that_becomes_zero_stays_zero_as_after_a_resume():
    network = tiny_network()
    rule = rule_for(network, "proximal-l1")
    fit(network, OPTIONS, rules=[rule])
    weight = weight_layers(network.network)["5"]
    place = tuple(int(i) for i in torch.nonzero(weight)[0])
    for value in (0.0, 1.0):
        with torch.no_grad():
            weight[place] = value
        rule.after_step(0.02, 1.0)
        assert weight[place] == 0


def test_group_lasso_counts_whole_channels_only():
    network = tiny_network()
    with torch.no_grad():
        for weight in weight_layers(network.network).values():
            weight[:, ::2] = 0  # half of the weights, but no channel
    assert rule_for(network, "proximal-l1").has_enough_zeros()
    assert not rule_for(network, "group-lasso").has_enough_zeros()


# the commands

FEW = ["--device", "cpu", "--set", "train.epochs=1", "--set", "sparsify.epochs=1"]


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    path = tmp_path_factory.mktemp("dense") / "dense.safetensors"
    with pytest.MonkeyPatch.context() as monkeypatch:
        from tests.helpers.command_line import modelpress

        assert modelpress(monkeypatch, "train", "--epochs", 1, "--device", "cpu", "-o", path) == 0
    return path


def test_a_run_prunes_by_penalty_and_holds_the_zeros(dense, tmp_path, call):
    out = tmp_path / "out"
    settings = ["--set", "prune.method=trimmed-l1", "--set", "prune.penalty=2", "--checkpoint", dense]
    code, _, err = call("run", "-o", out, "--epochs", 1, *settings, *FEW, *QUICK)
    assert code == 0, err
    assert "187,835 of 268,336 prunable weights removed (70.00%)" in err
    manifest = json.loads((out / "manifest.json").read_text())
    assert "pruned.safetensors" in manifest["files"]
    assert manifest["history"]["prune"]["method"] == "trimmed-l1"
    assert manifest["history"]["prune"]["penalty"] == 2
    results = read_results(out / "results.json")
    assert results.training["sparsify"][-1]["sparsity"] == pytest.approx(0.7, abs=1e-5)
    assert results.models[1].sparsity == pytest.approx(187_835 / 270_896)
    pruned = weight_layers(load_network(out / "pruned.safetensors", ModelOptions()).network)
    final = weight_layers(load_network(out / "checkpoint.safetensors", ModelOptions()).network)
    for name, weight in pruned.items():
        assert bool((final[name][weight == 0] == 0).all()), name
    assert '"trimmed-l1"' in read_artifact(out / "model.press").graph.SerializeToString().decode("latin-1")


@pytest.mark.parametrize("method", METHODS)
def test_prune_takes_every_method(dense, tmp_path, call, method):
    pruned = tmp_path / "pruned.safetensors"
    penalty = 100 if method == "group-lasso" else 2
    settings = ["--set", f"prune.method={method}", "--set", f"prune.penalty={penalty}", "--sparsity", 0.3]
    code, out, err = call("prune", dense, "-o", pruned, *settings, *FEW, "--json")
    assert code == 0, err
    record = json.loads(out)
    asked_for = round(0.3 * record["prunable"])
    largest = 3 * 64 * 9 + 32  # a channel of the last stage, in three convolutions and a projection
    assert 0 <= record["removed"] - asked_for < (largest if method == "group-lasso" else 1)
    assert record["epochs"][-1]["sparsity"] == pytest.approx(record["removed"] / record["prunable"])
    state = load_network(pruned, ModelOptions())
    assert sum(int((~mask).sum()) for mask in state.masks.values()) == record["removed"]
    assert [path.name for path in tmp_path.iterdir()] == ["pruned.safetensors"]
    assert ("batch norms have their length again" in err) == (
        method != "group-lasso"
    )  # which keeps it all along
    before = weight_layers(load_network(dense, ModelOptions()).network)
    for name, weight in list(weight_layers(state.network).items())[:-1]:  # no batch norm behind the last
        length = float(weight.detach().norm())
        assert length == 0 or length >= 0.998 * float(before[name].detach().norm())


def test_only_prunable_weights_are_counted(dense, tmp_path, call):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    assert call("prune", dense, "-o", first, "--set", "prune.exclude=[]", "--sparsity", 0.7)[0] == 0
    only_the_ends = ["--set", "prune.exclude=['body_op*']", "--sparsity", 0.3]
    penalty = ["--set", "prune.method=trimmed-l1", "--set", "prune.penalty=2"]
    code, out, err = call("prune", first, "-o", second, *only_the_ends, *penalty, *FEW, "--json")
    assert code == 0, err
    record = json.loads(out)
    assert record["prunable"] == 3 * 16 * 9 + 64 * 10
    assert record["removed"] <= record["prunable"]


def test_a_network_with_enough_zeros_is_told(dense, tmp_path, call):
    first = tmp_path / "first.safetensors"
    assert call("prune", dense, "-o", first)[0] == 0
    penalty = ["--set", "prune.method=trimmed-l1", "--sparsity", 0.5]
    code, _, err = call("prune", first, "-o", tmp_path / "second.safetensors", *penalty, *FEW)
    assert code == 0, err
    assert "there are enough zeros already: the penalty does not act" in err
    assert "(70.00%)" in err


def test_options_of_the_penalty_are_refused_without_one(dense, tmp_path, call):
    code, _, err = call("prune", dense, "-o", tmp_path / "p.safetensors", "--epochs", 3)
    assert code == 2
    assert "--epochs and --resume are for pruning by a penalty; prune.method is global-magnitude" in one_line(
        err
    )


def test_what_the_subgradient_leaves_is_counted(dense, tmp_path, call):
    settings = ["--set", "prune.method=l1-subgradient", "--set", "prune.penalty=0.01"]
    code, out, err = call("prune", dense, "-o", tmp_path / "p.safetensors", *settings, *FEW, "--json")
    assert code == 0, err
    assert "more are at most 1% of the largest in their layer, and not zero" in err
    record = json.loads(out)
    assert (record["removed"], record["epochs"][-1]["sparsity"]) == (0, 0.0)
    assert record["small"] > 0.01 * record["prunable"]


def test_falling_short_of_the_sparsity_is_said(dense, tmp_path, call):
    settings = ["--set", "prune.method=proximal-l1", "--set", "prune.penalty=1e-6"]
    code, out, err = call("prune", dense, "-o", tmp_path / "p.safetensors", *settings, *FEW, "--json")
    assert code == 0
    assert "short of the 70.00% asked for: raise prune.penalty or sparsify.epochs" in err
    record = json.loads(out)
    assert record["removed"] < 0.1 * record["prunable"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--epochs", 0], "prune.method trimmed-l1 works by training: set sparsify.epochs above 0"),
        (["--set", "prune.penalty=-1"], "prune.penalty is -1: input should be greater than 0"),
        (["--set", "prune.penalty=.nan"], "prune.penalty is nan"),
        (["--set", "prune.method=l1"], "prune.method is 'l1': input should be 'global-magnitude'"),
        (["--set", "prune.exclude=['*']"], "leaves no layer to prune"),
    ],
)
def test_bad_options_are_one_line(dense, tmp_path, call, settings, message):
    method = ["--set", "prune.method=trimmed-l1"]
    code, _, err = call("prune", dense, "-o", tmp_path / "p.safetensors", *FEW, *method, *settings)
    assert code == (1 if "exclude" in str(settings) else 2)  # only the network tells which layers there are
    assert message in one_line(err)
    assert not list(tmp_path.iterdir())


def coupled_rule(shortcut, *, scale=1.0, **options):
    torch.manual_seed(0)
    network, x = residual(shortcut)
    with torch.no_grad():
        for weight in list(weight_layers(network).values())[::2]:
            weight.mul_(scale)
    state = NetworkState(shaken(network).eval(), None, inputs=Inputs.of(x))
    prune = PruneOptions(method="group-lasso", **{"sparsity": 0.5, "penalty": 50.0, **options})
    weights, coupling = prunable_layers(state, prune), coupling_of(state)
    return (
        state,
        coupling,
        ProximalStep(weights, prune, ChannelGroups.coupled(weights, coupling, state.network)),
    )


def test_channels_that_an_addition_joins_shrink_as_one():
    state, coupling, rule = coupled_rule("B")
    for _ in range(40):
        rule.after_step(0.02, 1.0)
    kept = {name: mask.flatten(1).any(dim=1) for name, mask in rule.masks().items()}
    first = "head_conv.0.conv"
    stage = [name for name, own in coupling.layers.items() if torch.equal(own, coupling.layers[first])]
    assert len(stage) == 4
    assert all(torch.equal(kept[name], kept[first]) for name in stage)
    assert 0.5 <= rule.sparsity() < 0.55

    # what is added to channels that are gone is gone as well: they are zero, and can be taken out
    parameters = dict(state.network.named_parameters())
    gone = torch.tensor(sorted(coupling.removed(rule.masks())))
    for name, groups in coupling.shifts.items():
        assert (parameters[name][torch.isin(groups, gone)] == 0).all()
    small = narrowed(replace(state, masks=rule.masks())).state
    assert {n: len(w) for n, w in weight_layers(small.network).items() if n in kept} == {
        name: max(int(rows.sum()), 1) for name, rows in kept.items()
    }


def test_a_group_shrinks_by_its_length_over_all_layers_in_units_of_each():
    state, coupling, rule = coupled_rule("B", penalty=1.0, penalty_warmup=0.0)
    before = {name: w.detach().double().clone() for name, w in weight_layers(state.network).items()}
    rule.after_step(0.01, 0.5)
    group = int(coupling.layers["head_conv.0.conv"][3])
    rows = {name: own == group for name, own in coupling.layers.items() if (own == group).any()}
    units = {name: float(before[name].square().mean()) ** 0.5 for name in rows}
    length = sum(float((before[name][own] / units[name]).square().sum()) for name, own in rows.items()) ** 0.5
    size = sum(before[name][own].numel() for name, own in rows.items())
    for name, own in rows.items():
        after = weight_layers(state.network)[name][own].detach().double()
        assert_allclose(after, before[name][own] * (1 - 0.01 * size**0.5 / length), rtol=1e-5)


def test_the_scale_of_a_layer_does_not_matter_to_its_channels():
    """A batch norm behind it undoes that."""
    kept = []
    for scale in (1.0, 0.01):
        _state, _, rule = coupled_rule("B", scale=scale)
        for _ in range(20):
            rule.after_step(0.02, 1.0)
        kept.append(rule.masks())
        assert not all(bool(mask.all()) for mask in kept[-1].values())
    for name, mask in kept[0].items():
        assert torch.equal(mask, kept[1][name])
