import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modelpress.export.errors import InputError
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.passes.prune import pruned_by_magnitude
from modelpress.toolkit.compression.pruning.granularity import (
    choose_masks,
    keep_n_of_m,
    pattern_of,
    prune_channels,
)
from modelpress.toolkit.compression.pruning.magnitude import prune_below_percentile
from modelpress.toolkit.compression.pruning.removal import prunable_layers
from modelpress.toolkit.compression.pruning.schedule import PruningSchedule, sparsity_at
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.networks.layers import weight_layers
from modelpress.toolkit.recipe import ModelOptions, PruneOptions, TrainingOptions
from modelpress.toolkit.training.rules import Moment, TrainingRule
from tests.helpers.training import fit

METHODS = ("global-magnitude", "layer-magnitude")
PER_EPOCH = 5  # steps of the trainings here
SHAPES = {"a": (6, 4, 3, 3), "b": (4, 8), "c": (2, 12)}


class Tiny(nn.Sequential):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=4),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, 10),
        )


def open_network(**quantizers):
    network = Tiny()
    masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weight_layers(network).items()}
    return CompressedNetwork(network, masks=masks, quantizers=quantizers)


def options_of(granularity="weight", **options):
    sparsity = {"2:4": 0.5, "1:4": 0.75, "2:3": 1 / 3}.get(granularity, 0.7)
    defaults = {"schedule": "linear", "exclude": (), "sparsity": sparsity}
    return PruneOptions(**{**defaults, "granularity": granularity, **options})


def steps(rule, options, network, *, steps_per_epoch=PER_EPOCH):
    """Go through the moments of a training without training; yields copies of the masks after each."""
    for epoch in range(options.epochs + 1):
        for step in range(steps_per_epoch):
            rule.before_step(Moment(epoch, step, steps_per_epoch))
            yield {name: mask.clone() for name, mask in network.masks.items()}


def removed(masks):
    return {name: int((~mask).sum()) for name, mask in masks.items()}


def tied_weights(seed):
    """Small whole numbers, many of them zero."""
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randint(-2, 3, s, generator=generator).float() for n, s in SHAPES.items()}


# how much


def test_the_linear_schedule_rises_in_equal_steps():
    options = options_of()
    reached = [sparsity_at(options, k / 10) for k in range(1, 11)]
    assert reached == [0.07, 0.14, 0.21, 0.28, 0.35, 0.42, 0.49, 0.56, 0.63, 0.7]


def test_the_cubic_schedule_is_steep_at_first():
    options = options_of(schedule="cubic", sparsity=0.8)
    reached = [sparsity_at(options, k / 4) for k in range(5)]
    assert reached == [0, 0.4625, 0.7, 0.7875, 0.8]


@pytest.mark.parametrize("schedule", ["linear", "cubic"])
@pytest.mark.parametrize("updates", [1, 2, PER_EPOCH, 7])  # the last: more than there are steps
@pytest.mark.parametrize("method", METHODS)
def test_every_step_removes_exactly_what_the_schedule_says(method, updates, schedule):
    network = open_network()
    options = options_of(method=method, schedule=schedule, epochs=3, updates_per_epoch=updates)
    layers = weight_layers(network.network)
    rule = PruningSchedule(network, layers, options)
    total = 3 * updates
    for number, masks in enumerate(steps(rule, options, network)):
        epoch, step = divmod(number, PER_EPOCH)
        due = sum(k * PER_EPOCH // updates <= step for k in range(updates))  # of this epoch
        share = sparsity_at(options, min((epoch * updates + due) / total, 1.0))
        counts, sizes = removed(masks), {name: w.numel() for name, w in layers.items()}
        if method == "global-magnitude":
            assert sum(counts.values()) == round(share * sum(sizes.values()))
        else:
            assert counts == {name: round(share * n) for name, n in sizes.items()}
    assert rule.sparsity() == pytest.approx(0.7, abs=2e-3)


def test_nothing_is_removed_when_the_schedule_is_over():
    network = open_network()
    options = options_of(epochs=2)
    rule = PruningSchedule(network, weight_layers(network.network), options)
    before = removed(network.masks)
    assert rule.before_step(Moment(2, 0, PER_EPOCH)) is False
    assert removed(network.masks) == before


# which


@settings(max_examples=60)
@given(
    st.integers(0, 1000),
    st.sampled_from(METHODS),
    st.sampled_from(["weight", "channel", "2:4", "1:4"]),
    st.sampled_from(["linear", "cubic"]),
)
def test_no_removed_weight_comes_back_while_zeros_are_held(seed, method, granularity, schedule):
    """Whatever the training does to weights: many are equal, kept ones are zero, removed ones are large."""
    options = options_of(granularity, method=method, schedule=schedule)
    kept = {name: torch.ones(shape, dtype=torch.bool) for name, shape in SHAPES.items()}
    for step in range(1, 11):
        weights = tied_weights(seed + step)
        asked_for = sparsity_at(options, step / 10)
        masks = choose_masks(weights, options, sparsity=asked_for, kept=kept)
        for name, mask in masks.items():
            assert not (mask & ~kept[name]).any()
        counts, sizes = removed(masks), {name: w.numel() for name, w in weights.items()}
        if granularity == "weight" and method == "global-magnitude":
            assert sum(counts.values()) == round(asked_for * sum(sizes.values()))
        elif granularity == "weight":
            assert counts == {name: round(asked_for * n) for name, n in sizes.items()}
        elif granularity != "channel":
            n, m = pattern_of(granularity)
            gone = min(m - n, int(asked_for * m + 1e-9))
            assert counts == {name: gone * size // m for name, size in sizes.items()}
        kept = masks


@pytest.mark.parametrize("granularity", ["weight", "channel", "2:4"])
def test_what_was_removed_before_the_schedule_stays_removed(granularity):
    network = open_network()
    early = {name: torch.rand(m.shape) < 0.2 for name, m in network.masks.items()}
    network.set_masks(early)
    options = options_of(granularity, epochs=5)
    layers = {"3": network.dense_weight("3")}
    for masks in steps(PruningSchedule(network, layers, options), options, network):
        for name, mask in masks.items():
            assert not (mask & ~early[name]).any()
            assert name == "3" or torch.equal(mask, early[name])


@given(st.integers(0, 1000), st.sampled_from(["weight", "channel", "2:4"]), st.sampled_from(METHODS))
def test_ties_are_broken_the_same_way_every_time(seed, granularity, method):
    options = options_of(granularity, method=method)
    weights = tied_weights(seed)
    first = choose_masks(weights, options)
    again = choose_masks({name: -w.clone() for name, w in weights.items()}, options)
    assert all(torch.equal(first[name], again[name]) for name in weights)


@given(st.integers(0, 1000), st.floats(0, 1), st.booleans())
def test_channels_go_whole_and_never_more_than_asked_for(seed, sparsity, globally):
    generator = torch.Generator().manual_seed(seed)
    weights = {n: torch.randn(w.shape, generator=generator) * w for n, w in tied_weights(seed).items()}
    masks = prune_channels(weights, sparsity=sparsity, globally=globally)
    groups = [list(weights)] if globally else [[name] for name in weights]
    for names in groups:
        asked_for = round(sparsity * sum(weights[n].numel() for n in names))
        gone = sum(removed(masks)[n] for n in names)
        widest = max(weights[n][0].numel() for n in names)
        assert gone <= asked_for
        assert gone > asked_for - widest or gone == sum(weights[n].numel() for n in names)
    sizes, stays = [], []
    for name, mask in masks.items():
        rows = mask.flatten(1)
        assert torch.equal(rows.any(dim=1), rows.all(dim=1))
        sizes.append(weights[name].flatten(1).square().mean(dim=1))
        stays.append(rows.all(dim=1))
    kept, size = torch.cat(stays), torch.cat(sizes)
    if globally and kept.any() and not kept.all():
        assert size[~kept].max() <= size[kept].min()


def test_whole_channels_of_the_last_layer_are_never_removed():
    state = NetworkState(Tiny(), ModelOptions())
    assert list(prunable_layers(state, options_of("channel"))) == ["0", "3"]
    assert list(prunable_layers(state, options_of())) == ["0", "3", "7"]
    pruned = pruned_by_magnitude(state, options_of("channel", schedule="one-shot"))
    assert list(pruned.masks) == ["0", "3"]
    assert bool((weight_layers(pruned.network)["7"] != 0).all())
    summary = pruned.history["prune"]
    assert summary["granularity"] == "channel"
    assert 0 < summary["removed"] <= 0.7 * summary["prunable"]
    with pytest.raises(InputError, match="leaves no layer to prune"):
        prunable_layers(state, options_of("channel", exclude=("0", "3")))


@given(st.integers(0, 1000), st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 6)]))
def test_exactly_n_of_m_neighbouring_input_channels_stay(seed, pattern):
    n, m = pattern
    weight = torch.randn((5, 12, 3, 2), generator=torch.Generator().manual_seed(seed))
    mask = keep_n_of_m(weight, n, m)
    groups = mask.movedim(1, -1).reshape(-1, m)
    assert bool((groups.sum(dim=1) == n).all())
    sizes = weight.abs().movedim(1, -1).reshape(-1, m)
    smallest_kept = torch.where(groups, sizes, torch.inf).amin(dim=1)
    assert bool((torch.where(groups, 0.0, sizes).amax(dim=1) <= smallest_kept).all())


@pytest.mark.parametrize(
    ("granularity", "sparsity"), [("2:3", 0.333333), ("2:3", 1 / 3), ("9:10", 0.1), ("1:3", 0.666667)]
)
def test_patterns_of_thirds_and_tenths_are_reached(granularity, sparsity):
    n, m = pattern_of(granularity)
    weight = torch.randn(2, 30, generator=torch.Generator().manual_seed(0))
    mask = choose_masks({"a": weight}, options_of(granularity, sparsity=sparsity))["a"]
    assert bool((mask.reshape(-1, m).sum(dim=1) == n).all())


def test_a_layer_that_no_group_fits_is_named_with_the_way_out():
    with pytest.raises(InputError, match=r"^0 has 3 input channels, which 4 does not divide: leave it out"):
        pruned_by_magnitude(NetworkState(Tiny(), ModelOptions()), options_of("2:4", schedule="one-shot"))
    network = open_network()
    options = options_of("2:4")
    with pytest.raises(InputError, match="with prune.exclude, or choose another pattern"):
        PruningSchedule(network, weight_layers(network.network), options).before_step(Moment(0, 0, 5))


@pytest.mark.parametrize("text", ["4:2", "2:2", "0:4", "channels", "2-4", "a:b"])
def test_patterns_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="choose weight, channel, or N:M as in 2:4"):
        pattern_of(text)


# in training


class Watch(TrainingRule):
    """Sees which weights the forward pass has at zero, after every step."""

    def __init__(self, network, layers, *, held_from):
        self.network, self.layers, self.held_from = network, list(layers), held_from
        self.seen, self.n_steps = [], 0

    def zeros(self):
        return torch.cat([(self.network.effective_weight(n) == 0).flatten() for n in self.layers])

    def after_step(self, learning_rate, progress):
        zeros = self.zeros()
        if self.n_steps > self.held_from:
            assert not (self.seen[-1] & ~zeros).any(), "a held zero moved"
        self.seen.append(zeros)
        self.n_steps += 1


TRAINING = TrainingOptions(epochs=4, batch=32, lr=0.05, padding=2, weight_decay=1e-2)


@pytest.mark.parametrize("average", [0, 0.9])
@pytest.mark.parametrize("granularity", ["weight", "channel", "1:4"])
def test_held_zeros_stay_to_the_end_of_the_training(granularity, average):
    network = open_network()
    layers = ["3"] if granularity != "weight" else ["0", "3", "7"]
    options = options_of(granularity, epochs=2, updates_per_epoch=2)
    watch = Watch(network, layers, held_from=0)
    rules = [PruningSchedule(network, layers, options), watch]
    history = fit(network, TRAINING.model_copy(update={"average": average}), rules=rules)
    assert 0 < watch.seen[0].sum() < watch.seen[-1].sum() or granularity != "weight"
    assert int(watch.seen[-1].sum()) == sum(removed(network.masks).values())
    assert torch.equal(watch.zeros(), watch.seen[-1])  # the average has them too
    sparsity = [record.sparsity for record in history]
    assert sparsity[1] == sparsity[2] == sparsity[3] == watch.seen[-1].double().mean().item()
    network.settle()
    assert int((network.dense_weight("3") == 0).sum()) == removed(network.masks)["3"]


def test_weights_may_grow_back_until_the_last_step_holds_them():
    network = open_network()
    layers = ["0", "3", "7"]
    options = options_of(epochs=2, updates_per_epoch=2, hold=False)
    last_step = PER_EPOCH + PER_EPOCH // 2
    watch = Watch(network, layers, held_from=last_step)
    fit(network, TRAINING, rules=[PruningSchedule(network, layers, options), watch])
    total = sum(network.dense_weight(n).numel() for n in layers)
    assert all(seen.sum() < 0.1 * total for seen in watch.seen[:last_step])  # gradients move them at once
    assert all(int(seen.sum()) == round(0.7 * total) for seen in watch.seen[last_step:])
    assert sum(removed(network.masks).values()) == round(0.7 * total)


def test_the_same_training_removes_the_same_weights():
    masks = []
    for _ in range(2):
        network = open_network()
        options = options_of(epochs=2, updates_per_epoch=2, schedule="cubic")
        fit(network, TRAINING, rules=[PruningSchedule(network, ["0", "3", "7"], options)])
        masks.append(network.masks)
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])


@given(st.integers(1, 400), st.integers(0, 100), st.integers(0, 10**6))
def test_the_percentile_is_that_of_numpy(n, percent, seed):
    weight = torch.from_numpy(np.random.default_rng(seed).standard_normal(n).astype(np.float32))
    magnitude = weight.abs().numpy().astype(np.float64)
    removed = magnitude < np.percentile(magnitude, percent) * (
        1 - 1e-12
    )  # NumPy's own rounding at order statistics
    mask = prune_below_percentile({"a": weight}, sparsity=percent / 100)["a"]
    assert np.array_equal(~mask.numpy(), removed)
