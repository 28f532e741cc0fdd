"""Weights made short by a penalty get their length back, and the network computes what it did."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from modelpress.export.graphs.batch_norm import normalised_layers
from modelpress.toolkit.compression.freeze import drawn_model
from modelpress.toolkit.compression.pruning.rescaling import lengths, restore_lengths
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.networks.inputs import Inputs
from modelpress.toolkit.networks.layers import weight_layers
from tests.helpers.networks import shaken
from tests.toolkit.compression.test_removed_channels import residual


class Mixed(nn.Module):
    """Layers with a batch norm of their own (one with a bias, one transposed, one linear), and layers without."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, bias=True)
        self.norm = nn.BatchNorm2d(6, eps=1e-3)
        self.bare = nn.Conv2d(6, 6, 1)
        self.up = nn.ConvTranspose2d(6, 5, 2, stride=2, bias=False)
        self.up_norm = nn.BatchNorm2d(5)
        self.read_twice = nn.Conv2d(5, 5, 1)
        self.twice_norm = nn.BatchNorm2d(5)
        self.wide = nn.Linear(5, 7)
        self.wide_norm = nn.BatchNorm1d(7)
        self.head = nn.Linear(7, 4)

    def forward(self, x):
        x = torch.relu(self.bare(torch.relu(self.norm(self.first(x)))))
        x = self.read_twice(torch.relu(self.up_norm(self.up(x))))
        x = torch.relu(x + self.twice_norm(x)).mean((2, 3))
        return self.head(torch.relu(self.wide_norm(self.wide(x))))


NORMALISED = {"first", "up", "wide"}


def state_of(network, images):
    return NetworkState(shaken(network, seed=1), None, inputs=Inputs((images,)))


@pytest.fixture
def shortened():
    """A network with all of its weights made short, half of the first layer's zero, and the lengths before."""
    torch.manual_seed(0)
    state = state_of(Mixed(), torch.randn(2, 3, 8, 8))
    before = lengths(state.network)
    with torch.no_grad():
        for weight in weight_layers(state.network).values():
            weight.mul_(0.02)
        state.network.first.weight[::2] = 0
    return state, before


def test_layers_with_a_batch_norm_of_their_own_are_found(shortened):
    state, _ = shortened
    found = normalised_layers(drawn_model(state.compressed(), state.inputs))
    assert [bool(layer.bias) for layer in found] == [True, False, True]
    assert [layer.epsilon for layer in found] == pytest.approx([1e-3, 1e-5, 1e-5])


def test_weights_have_their_length_again_and_outputs_stay(shortened):
    state, before = shortened
    images = torch.randn(64, 3, 8, 8)
    state.network.eval()
    with torch.no_grad():
        outputs = state.network(images)
        factors = restore_lengths(state, before)
        assert torch.allclose(state.network(images), outputs, atol=1e-5 * float(outputs.abs().max()), rtol=0)
    assert set(factors) == {f"{name}.weight" for name in NORMALISED}
    assert all(factor >= 49 for factor in factors.values())
    now = lengths(state.network)
    for name in weight_layers(state.network):
        share = now[f"{name}.weight"] / before[f"{name}.weight"]
        assert share == pytest.approx(1.0 if name in NORMALISED else 0.02, rel=1e-5)
    assert not state.network.first.weight[::2].any()


def test_longer_weights_and_zero_weights_stay_as_they_are(shortened):
    state, _ = shortened
    short = {name: length / 2 for name, length in lengths(state.network).items()}
    assert restore_lengths(state, short) == {}
    with torch.no_grad():
        state.network.up.weight.zero_()
    assert "up.weight" not in restore_lengths(
        state, {name: 2 * x for name, x in lengths(state.network).items()}
    )


def test_masked_weights_stay_masked_in_a_residual_network():
    torch.manual_seed(0)
    state = state_of(*residual("B"))
    before = lengths(state.network)
    masks = {name: torch.rand_like(weight) < 0.5 for name, weight in weight_layers(state.network).items()}
    masked = replace(state, masks=masks)
    masked.compressed().settle()
    assert restore_lengths(masked, before)
    for name, weight in weight_layers(masked.network).items():
        assert not weight[~masks[name]].any()
