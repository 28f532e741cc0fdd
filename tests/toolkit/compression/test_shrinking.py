"""Channels that pruning removed, taken out of the torch network itself."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

from modelpress.export.errors import InputError
from modelpress.toolkit.compression.freeze import freeze_state
from modelpress.toolkit.compression.network_file import load_network, save_network
from modelpress.toolkit.compression.passes.prune import pruned_by_magnitude
from modelpress.toolkit.compression.pruning.shrinking import narrowed
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.networks.inputs import Inputs
from modelpress.toolkit.networks.layers import weight_layers
from modelpress.toolkit.networks.narrowing import make_room, narrow
from modelpress.toolkit.recipe import ModelOptions, PruneOptions
from modelpress.toolkit.studies.networks.shaking import settled
from tests.helpers.networks import NETWORKS, shaken
from tests.toolkit.compression.test_removed_channels import CHANNELS, EVERY_KIND, residual


@cache
def pruned(name, options=CHANNELS):
    torch.manual_seed(0)
    network, x = residual(name) if name in "AB" else NETWORKS[name]()
    model = ModelOptions(shortcut=name) if name in "AB" else None
    state = pruned_by_magnitude(NetworkState(shaken(network).eval(), model, inputs=Inputs.of(x)), options)
    if x.ndim == 4:
        settled(state.network, [x])
    return state, x


def n_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def outputs(state, x):
    return state.compressed().eval()(x)


@EVERY_KIND
def test_the_smaller_torch_network_computes_what_the_masked_one_does(name, at_most):
    state, x = pruned(name)
    small = narrowed(state)
    assert n_parameters(small.state.network) <= at_most * n_parameters(state.network)
    expected = outputs(state, x)
    varies = float((expected - expected.mean(dim=0)).abs().max())
    assert varies > 0.01 * float(expected.abs().max())
    assert float((outputs(small.state, x) - expected).abs().max()) <= 1e-5 * varies


def test_what_is_left_is_what_the_masks_kept():
    state, _ = pruned("B")
    small = narrowed(state).state
    kept = {name: mask.flatten(1).any(dim=1).sum() for name, mask in state.masks.items()}
    assert {name: len(weight_layers(small.network)[name]) for name in kept} == kept
    assert not small.masks
    notes = []
    freeze_state(small, note=notes.append)
    assert not notes  # that nothing is left to take out
    assert small.network.body_op[0].conv1[1].num_features == kept["body_op.0.conv1.0.conv"]


def test_a_narrowed_network_comes_back_from_its_file(tmp_path):
    state, x = pruned("A")
    small = narrowed(state).state
    save_network(tmp_path / "small.safetensors", small)
    loaded = load_network(tmp_path / "small.safetensors", ModelOptions())
    assert torch.equal(outputs(loaded, x), outputs(small, x))


def test_a_file_cannot_ask_for_more_than_its_network_has(tmp_path):
    small = narrowed(pruned("A")[0]).state
    history = {**small.history, "shrink": {"counts": {"body_op.3": {"before": 9, "after": 0}}}}
    save_network(tmp_path / "damaged.safetensors", replace(small, history=history))
    with pytest.raises(
        InputError, match=r"damaged.safetensors does not fit .* adds 9 and 0 channels; expected 0 to"
    ):
        load_network(tmp_path / "damaged.safetensors", ModelOptions())
    with pytest.raises(InputError, match=r"weight has shape \(3, 4\); expected at most \(2, 4\)"):
        make_room(nn.Linear(4, 2), {"weight": (3, 4)}, {})


class Counting(nn.Module):
    """Holds the number of its channels fast."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8 * 36, 4)

    def forward(self, x):
        return self.last(self.first(x).relu().view(-1, 8 * 36))


def test_a_network_that_counts_channels_by_itself_stays_masked():
    torch.manual_seed(0)
    state = NetworkState(Counting().eval(), None, inputs=Inputs.of(torch.randn(2, 3, 8, 8)))
    state = pruned_by_magnitude(state, CHANNELS)
    found = narrowed(state)
    assert found.state is state
    assert found.words.startswith("channels stay, masked: the smaller network does not run: ")


def test_an_optimiser_goes_on_with_the_smaller_network():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    stays = torch.tensor([True, False, True, True])
    narrow(network, {"0.weight": {0: stays}, "0.bias": {0: stays}, "2.weight": {1: stays}})

    before = network[0].weight.clone()
    network(torch.randn(5, 3)).square().sum().backward()
    optimiser.step()
    assert before.shape == (3, 3)
    assert not torch.equal(network[0].weight, before)


def test_masks_of_single_weights_get_smaller_with_their_layers():
    state, _ = pruned("small_cnn", PruneOptions(sparsity=0.3))
    both = pruned_by_magnitude(state, CHANNELS)
    small = narrowed(both).state
    assert small.masks
    layers = weight_layers(small.network)
    assert all(mask.shape == layers[name].shape for name, mask in small.masks.items())
    assert all((layers[name][~mask] == 0).all() for name, mask in small.masks.items())
