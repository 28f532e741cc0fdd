"""Whole channels pruned from networks of every kind, and gone from what is made of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from modelpress.export.errors import InputError
from modelpress.export.runtime import open_decoded, run_feed
from modelpress.toolkit.compression.freeze import freeze, freeze_state
from modelpress.toolkit.compression.passes.finetune import rules_of
from modelpress.toolkit.compression.passes.prune import pruned_by_magnitude
from modelpress.toolkit.compression.pruning.coupling import coupling_of
from modelpress.toolkit.compression.pruning.removal import removed_weights
from modelpress.toolkit.compression.pruning.silence import Silence
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.networks.inputs import Inputs
from modelpress.toolkit.networks.layers import weight_layers
from modelpress.toolkit.networks.resnet_cifar import ResNetCifar
from modelpress.toolkit.recipe import PruneOptions, Recipe
from modelpress.toolkit.studies.networks.shaking import settled
from modelpress.toolkit.training.rules import Moment
from tests.helpers.networks import NETWORKS, shaken

FIRST = "head_conv.0.conv"
CHANNELS = PruneOptions(granularity="channel", sparsity=0.5)
EVERY_KIND = pytest.mark.parametrize(
    ("name", "at_most"),
    [
        ("A", 0.51),
        ("B", 0.51),
        ("inverted_residuals", 0.75),
        ("squeeze_excite", 0.9),
        ("mlp", 0.7),
        ("vision_transformer", 0.9),
        ("detector", 0.6),
    ],
)  # of networks, and the share of the parameters that may be left


def residual(shortcut):
    torch.manual_seed(0)
    return ResNetCifar("resnet20", shortcut=shortcut, n_classes=10), torch.randn(4, 3, 16, 16)


def state_of(name):
    torch.manual_seed(0)
    network, x = residual(name) if name in "AB" else NETWORKS[name]()
    return NetworkState(shaken(network).eval(), None, inputs=Inputs.of(x))


def outputs(model, x):
    (found,) = run_feed(open_decoded(model), {model.graph.graph.input[0].name: x.numpy()}).values()
    return found


def n_parameters(model):
    return sum(int(np.prod(tensor.shape)) for tensor in model.tensors.values())


@EVERY_KIND
def test_the_smaller_network_computes_what_the_masked_one_does(name, at_most):
    state = state_of(name)
    pruned = pruned_by_magnitude(state, CHANNELS)
    x = state.inputs.tensors()[0]
    if x.ndim == 4:
        settled(pruned.network, [x])  # outputs of a masked network that was not trained hardly vary

    masked, small = freeze(pruned.compressed(), pruned.inputs, metadata={}), freeze_state(pruned)
    assert n_parameters(small) <= at_most * n_parameters(masked)
    expected = outputs(masked, x)
    varies = np.ptp(expected, axis=0).max()
    assert varies > 0.02 * np.abs(expected).max()
    assert np.abs(outputs(small, x) - expected).max() <= 1e-5 * varies


def test_channels_that_an_addition_joins_are_chosen_together():
    state = state_of("B")
    coupling = coupling_of(state)
    masks = pruned_by_magnitude(state, replaced(method="layer-magnitude")).masks
    kept = {name: mask.flatten(1).any(dim=1) for name, mask in masks.items()}
    stage = [name for name, own in coupling.layers.items() if torch.equal(own, coupling.layers[FIRST])]
    assert len(stage) == 4
    assert all(torch.equal(kept[name], kept[stage[0]]) for name in stage)
    assert not kept[stage[0]].all()


def test_widths_are_left_at_multiples():
    state = state_of("A")
    masks = pruned_by_magnitude(state, replaced(multiple=8, sparsity=0.6)).masks
    widths = [int(mask.flatten(1).any(dim=1).sum()) for mask in masks.values()]
    assert {width % 8 for width in widths} == {0}
    assert min(widths) == 8


def test_a_sparsity_that_channels_do_not_reach_is_said():
    pruned = pruned_by_magnitude(state_of("B"), replaced(multiple=1000, sparsity=0.5))
    words = "short of the 50.00% asked for: other channels have to stay, or do not fit into blocks of prune.multiple"
    assert words in removed_weights(pruned)
    assert "short" not in removed_weights(pruned_by_magnitude(state_of("B"), replaced(sparsity=0.5)))


def replaced(**options):
    return CHANNELS.model_copy(update=options)


def test_a_layer_that_stays_dense_keeps_what_is_coupled_to_it():
    state = state_of("A")
    masks = pruned_by_magnitude(state, replaced(exclude=(FIRST,))).masks
    coupling = coupling_of(state)
    coupled = {n: torch.isin(own, coupling.layers[FIRST]) for n, own in coupling.layers.items() if n in masks}
    assert sum(rows.any() for rows in coupled.values()) > 3
    assert all(masks[name][rows].all() for name, rows in coupled.items())
    assert not all(mask.all() for mask in masks.values())


def test_where_no_channel_can_go_that_is_said():
    network = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Softmax(-1), torch.nn.Linear(6, 3))
    state = NetworkState(network.eval(), None, inputs=Inputs.of(torch.randn(2, 4)))
    with pytest.raises(InputError, match="no channel can be removed"):
        pruned_by_magnitude(state, CHANNELS)


@pytest.mark.parametrize("schedule", ["one-shot", "linear"])
def test_removed_channels_stay_zero_in_a_training(schedule):
    state = state_of("small_cnn")
    options = replaced(schedule=schedule, epochs=1)
    recipe = Recipe(prune=options)
    if schedule == "one-shot":
        state = pruned_by_magnitude(state, options)
    open_masks = {n: torch.ones_like(w, dtype=torch.bool) for n, w in weight_layers(state.network).items()}
    state = replace(state, masks={**open_masks, **state.masks})
    network = state.compressed()
    rules = rules_of(state, network, recipe)
    for rule in rules:
        rule.before_step(Moment(0, 0, 1))

    with torch.no_grad():
        for parameter in state.network.parameters():
            parameter.add_(0.1)  # as an optimiser that knows nothing of masks
    for rule in rules:
        rule.after_step(0.1, 1.0)

    (silent,) = (rule for rule in rules if isinstance(rule, Silence))
    gone = silent.coupling.removed(network.masks)
    assert gone
    parameters = dict(state.network.named_parameters())
    for name, groups in silent.coupling.shifts.items():
        dead = torch.tensor([int(group) in gone for group in groups])
        assert (parameters[name][dead] == 0).all()
        assert (parameters[name][~dead] != 0).all()


def test_single_weights_leave_the_shapes_alone():
    state = state_of("small_cnn")
    pruned = pruned_by_magnitude(state, PruneOptions(sparsity=0.5))
    frozen = freeze_state(pruned)
    assert n_parameters(frozen) == n_parameters(freeze(pruned.compressed(), pruned.inputs, metadata={}))
