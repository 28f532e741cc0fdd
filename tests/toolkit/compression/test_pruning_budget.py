"""Channels removed until a network costs what it may."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from modelpress.benchmarks.measures import layer_latency
from modelpress.benchmarks.measures.layer_latency import LayerTable
from modelpress.export.errors import InputError
from modelpress.export.graphs.channels.costs import LayerShape
from modelpress.export.runtime import open_decoded, run_feed
from modelpress.toolkit.compression.freeze import freeze_state
from modelpress.toolkit.compression.passes.finetune import rules_of
from modelpress.toolkit.compression.passes.prune import pruned_by_magnitude
from modelpress.toolkit.compression.passes.quantize import with_quantizers
from modelpress.toolkit.compression.pruning.coupling import coupling_of
from modelpress.toolkit.compression.pruning.removal import removed_weights
from modelpress.toolkit.compression.pruning.shrinking import narrowed
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.networks.inputs import Inputs
from modelpress.toolkit.networks.layers import weight_layers
from modelpress.toolkit.recipe import BudgetOptions, PruneOptions, QuantizeOptions, Recipe
from tests.helpers.networks import shaken
from tests.toolkit.compression.test_removed_channels import residual

SHAPE = LayerShape("Conv", 4, 8, 1, (6, 6), 36, (3, 3), (("pads", (1, 1, 1, 1)),))


def state():
    network, x = residual("A")
    return NetworkState(shaken(network).eval(), None, inputs=Inputs.of(x))


def options(**changes):
    budget = BudgetOptions(**{k: v for k, v in changes.items() if k in ("latency", "macs", "bytes")})
    others = {k: v for k, v in changes.items() if k not in ("latency", "macs", "bytes")}
    return PruneOptions(granularity="channel", budget=budget, **others)


def macs(network_state):
    return sum(layer.shape.macs for layer in coupling_of(network_state).costs)


@pytest.mark.parametrize("method", ["global-magnitude", "layer-magnitude"])
def test_as_many_multiplications_are_left_as_the_budget_allows(method):
    full = state()
    small = narrowed(pruned_by_magnitude(full, options(macs="0.5x", method=method))).state
    assert 0.47 < macs(small) / macs(full) <= 0.5
    assert small.history["prune"]["budget"]["found"] == pytest.approx(macs(small) / macs(full), abs=1e-4)


def test_widths_stay_multiples_under_a_budget():
    small = narrowed(pruned_by_magnitude(state(), options(macs="0.6x", multiple=8))).state
    widths = [len(weight) for weight in list(weight_layers(small.network).values())[:-1]]
    assert {width % 8 for width in widths} == {0}
    assert len(set(widths)) > 1


def test_channels_that_are_zero_already_count_as_gone():
    """A penalty leaves such, and those that a budget would not have chosen go as well."""
    full = state()
    cost = macs(full)
    with torch.no_grad():
        for name, weight in weight_layers(full.network).items():
            if "conv1" in name:
                weight[::3] = 0
    alone = narrowed(
        pruned_by_magnitude(replace(full, network=copy.deepcopy(full.network)), options(macs="0.99x"))
    )
    assert 0.6 < macs(alone.state) / cost < 0.75  # nothing else goes
    small = narrowed(pruned_by_magnitude(full, options(macs="0.5x"))).state
    assert 0.47 < macs(small) / cost <= 0.5
    assert small.history["prune"]["budget"]["found"] == pytest.approx(macs(small) / cost, abs=1e-4)


class Gated(nn.Module):
    """Sigmoids before padded convolutions: what a channel of zeros adds there cannot be moved."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        return self.head(torch.sigmoid(self.second(torch.sigmoid(self.first(x)))).mean((2, 3)))


class Squeezed(nn.Module):
    """A group norm and a squeeze-excitation by shapes that the graph computes."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16)
        self.squeeze, self.second = nn.Linear(16, 16), nn.Conv2d(16, 32, 3, padding=1)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        n, channels = x.shape[:2]
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3)))).view(n, channels, 1, 1)
        return self.head(torch.relu(self.second(x)).mean((2, 3)))


def alone(network):
    torch.manual_seed(0)
    return NetworkState(network.eval(), None, inputs=Inputs.of(torch.randn(2, 3, 8, 8)))


def test_multiplications_that_do_not_go_are_not_promised():
    full = alone(Gated())
    with pytest.raises(
        InputError, match=r"macs 0\.5x cannot be met.* since not all channels that are zero can be"
    ):
        pruned_by_magnitude(full, options(macs="0.5x"))


def test_layers_behind_shapes_that_the_graph_computes_are_counted():
    full = alone(Squeezed())
    weights = weight_layers(full.network)
    expected = 64 * (weights["first"].numel() + weights["second"].numel()) + 16 * 16 + 320
    assert macs(full) == expected
    small = narrowed(pruned_by_magnitude(full, options(macs="0.7x"))).state
    assert macs(small) <= 0.7 * expected


def test_a_budget_of_bytes_is_that_of_the_file():
    sizes = []

    def size_of(network_state):
        sizes.append(sum(int(mask.sum()) for mask in network_state.masks.values()) or 300_000)
        return sizes[-1]

    pruned = pruned_by_magnitude(state(), options(bytes="100kB", multiple=8), size_of=size_of)
    left = sum(int(mask.sum()) for mask in pruned.masks.values())
    assert 80_000 < left <= 100_000
    assert left in sizes


def test_a_budget_that_cannot_be_met_names_the_closest():
    with pytest.raises(
        InputError, match=r"macs 0.01x cannot be met; the closest .* is [\d,]+ macs, 0\.\d+x: raise"
    ):
        pruned_by_magnitude(state(), options(macs="0.01x", multiple=8))


def test_whole_branches_go_where_they_may():
    with pytest.raises(InputError, match="cannot be met"):
        pruned_by_magnitude(state(), options(macs="0.1x", multiple=16))

    pruned = pruned_by_magnitude(state(), options(macs="0.1x", multiple=16, branches=True))
    gone = [name for name, mask in pruned.masks.items() if not mask.any()]
    assert gone
    assert all("conv1" in name for name in gone)

    # for the four-bit grids of the small network a layer without weights is a layer like others
    small = narrowed(pruned).state
    x = pruned.inputs.arguments[0]
    for end in (small, with_quantizers(small, QuantizeOptions())):
        model = freeze_state(end)
        operators = [node.op_type for node in model.graph.graph.node]
        assert operators.count("Add") == 9 - len(gone)
        assert not [tensor for tensor in model.tensors if tensor.startswith(tuple(gone))]
        with torch.no_grad():
            expected = end.compressed()(x).numpy()
        (found,) = run_feed(open_decoded(model), {model.graph.graph.input[0].name: x.numpy()}).values()
        assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_a_removed_branch_adds_nothing_after_a_step_of_training():
    pruned = pruned_by_magnitude(state(), options(macs="0.1x", multiple=16, branches=True))
    network = narrowed(pruned).state.compressed()
    small = replace(pruned, network=network.network, masks=network.masks)
    recipe = Recipe(prune=options(macs="0.1x", multiple=16, branches=True))
    (silence,) = rules_of(small, network, recipe)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    silence.after_step(0.1, 0.5)
    operators = [node.op_type for node in freeze_state(small).graph.graph.node]
    assert operators.count("Add") == 9 - sum(not mask.any() for mask in pruned.masks.values())


def test_latency_follows_the_table_and_whole_networks_correct_it(tmp_path, monkeypatch):
    timed = []

    def ratio_of(self, models, names, operators):
        timed.append(names)
        half = len(names) // 2
        small, full = (sum(self.nanoseconds[n] for n in part) for part in (names[:half], names[half:]))
        return 1.2 * small / full  # the whole network is slower than its layers say

    monkeypatch.setattr(layer_latency, "measured", lambda shape: float(shape.macs))
    monkeypatch.setattr(LayerTable, "ratio_of", ratio_of)
    table = tmp_path / "table.json"
    pruned = pruned_by_magnitude(state(), options(latency="0.6x", latency_table=str(table)))
    assert macs(narrowed(pruned).state) / macs(state()) == pytest.approx(0.5, abs=0.02)
    assert 1 < len(timed) <= 3
    assert "0.6x" in removed_weights(pruned)
    assert json.loads(table.read_text())["machine"] == layer_latency.this_machine()


def test_networks_of_the_same_layers_and_other_operators_are_timed_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(layer_latency, "_network", lambda model: None)
    times = iter([[1.0, 2.0], [3.0, 4.0]])
    monkeypatch.setattr(layer_latency, "least_times", lambda calls, seconds: next(times))
    table = LayerTable.read(tmp_path / "table.json")
    ratios = [table.ratio_of(lambda: (None, None), ["Conv"], [name]) for name in ("Relu", "Tanh", "Relu")]
    assert ratios == [0.5, 0.75, 0.5]


def test_a_table_is_measured_once_for_each_processor(tmp_path, monkeypatch):
    path, asked = tmp_path / "cache" / "table.json", []
    monkeypatch.setattr(layer_latency, "measured", lambda shape: asked.append(shape) or 5.0)
    for _ in range(2):
        table = LayerTable.read(path)
        assert table.time_of(SHAPE) == 5.0
        table.keep()
    assert len(asked) == 1
    assert LayerTable.read(path).date == table.date

    monkeypatch.setattr(layer_latency, "this_machine", lambda: {"cpu": "another"})
    LayerTable.read(path).time_of(SHAPE)
    assert len(asked) == 2

    path.write_text("{}")
    with pytest.raises(InputError, match="is no table of layers; remove it"):
        LayerTable.read(path)


@pytest.mark.parametrize(
    "shape",
    [
        SHAPE,
        LayerShape("Conv", 8, 8, 8, (6,), 6, (3,)),
        LayerShape("ConvTranspose", 4, 6, 1, (5, 5), 25, (2, 2)),
        LayerShape("MatMul", 16, 8, 1, (3,), 3),
    ],
)
def test_a_layer_of_any_shape_can_be_timed(shape, monkeypatch):
    monkeypatch.setattr(layer_latency, "_SECONDS", 0.0)
    assert layer_latency.measured(shape) > 0


def test_costs_of_a_depthwise_layer_follow_its_groups():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 1), torch.nn.Conv2d(8, 8, 3, groups=8), torch.nn.Conv2d(8, 4, 1)
    )
    coupling = coupling_of(NetworkState(network.eval(), None, inputs=Inputs.of(torch.randn(2, 3, 6, 6))))
    gone = coupling.layers["0"][:2].numpy()
    first, depthwise, last = (layer.without(gone) for layer in coupling.costs)
    assert (first.taken, first.made) == (3, 6)
    assert (depthwise.taken, depthwise.made, depthwise.groups, depthwise.macs) == (6, 6, 6, 16 * 9 * 6)
    assert (last.taken, last.made, last.macs) == (6, 4, 16 * 24)
