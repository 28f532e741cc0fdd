from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import nn

from modelpress.export.errors import InputError
from modelpress.export.least_error import least_error_grid
from modelpress.export.press.reading import read_artifact
from modelpress.export.press.writing import write_artifact
from modelpress.toolkit.compression.freeze import freeze
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.network_file import load_network, save_network
from modelpress.toolkit.compression.pruning.magnitude import prune_per_layer
from modelpress.toolkit.compression.quantization.learned_step import GridParameters
from modelpress.toolkit.compression.quantization.quantizers import (
    Grid,
    QuantizerSpec,
    codes_of,
    fake_quantize,
    min_max_grid,
    values_of,
)
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.networks.inputs import image_inputs
from modelpress.toolkit.networks.layers import weight_layers
from modelpress.toolkit.networks.resnet_cifar import ResNetCifar
from modelpress.toolkit.recipe import ModelOptions
from modelpress.toolkit.training.checkpoint import load_state, save_state

KINDS = [(True, "float"), (False, "float"), (False, "integer")]  # symmetric, zero point
LARGEST = float(np.float32(1e30))


@st.composite
def specs(draw, **options):
    symmetric, zero_point = draw(st.sampled_from(KINDS))
    return QuantizerSpec(draw(st.integers(2, 8)), symmetric, draw(st.booleans()), zero_point, **options)


@st.composite
def weights_and_masks(draw):
    """Normal weights of one size in every row, next to rows and magnitudes that only an adversary writes."""
    shape = draw(array_shapes(min_dims=2, max_dims=4, max_side=5))
    if draw(st.booleans()):
        rng = np.random.default_rng(draw(st.integers(0, 1000)))
        weight = rng.standard_normal(shape) * 10.0 ** draw(st.integers(-30, 29)) + draw(
            st.sampled_from([0, 3])
        )
    else:
        weight = draw(arrays(np.float32, shape, elements=st.floats(-LARGEST, LARGEST, width=32)))
    kept = draw(st.none() | arrays(np.bool_, shape))
    return torch.from_numpy(weight.astype(np.float32)), None if kept is None else torch.from_numpy(kept)


def every_spec(**options):
    return [
        QuantizerSpec(bits, symmetric, per_channel, zero_point, **options)
        for bits, (symmetric, zero_point), per_channel in product((2, 4, 8), KINDS, (False, True))
    ]


def quantized(weight, grid):
    return values_of(codes_of(weight, grid), grid)


def error_norms(weight, kept, grid):
    """Per scale: the root of the summed squared errors of kept weights."""
    difference = (weight.double() - quantized(weight, grid).double()) * (1 if kept is None else kept)
    rows = difference.reshape(weight.shape[0] if grid.spec.per_channel else 1, -1)
    return torch.linalg.vector_norm(rows, dim=1)


def random_weights(shape=(6, 5, 3, 3), *, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# grids from weights


@settings(max_examples=150)
@given(specs(), weights_and_masks())
def test_the_least_error_is_never_above_that_of_minimum_and_maximum(spec, weight_and_mask):
    weight, kept = weight_and_mask
    least = error_norms(weight, kept, least_error_grid(weight, spec, kept=kept))
    usual = error_norms(weight, kept, min_max_grid(weight, spec, kept=kept))
    used = weight if kept is None else torch.where(kept, weight, 0.0)
    rounding = 1e-6 * used.abs().max().double() * weight.numel() ** 0.5
    assert bool((least <= usual * (1 + 1e-6) + rounding).all())


@settings(max_examples=150)
@given(specs(), weights_and_masks(), st.sampled_from([min_max_grid, least_error_grid]))
def test_scales_are_positive_and_codes_in_range_whatever_the_weights(spec, weight_and_mask, search):
    weight, kept = weight_and_mask
    grid = search(weight, spec, kept=kept)
    expected = (weight.shape[0],) if spec.per_channel else ()
    assert grid.scale.shape == expected
    assert grid.scale.dtype == torch.float32
    assert bool(((grid.scale > 0) & torch.isfinite(grid.scale)).all())
    assert (grid.offset is None) == spec.symmetric
    if grid.offset is not None:
        assert grid.offset.shape == expected
        assert bool(torch.isfinite(grid.offset).all())
    codes = codes_of(weight, grid)
    low, high = spec.codes
    assert bool(((codes >= low) & (codes <= high) & (codes == codes.round())).all())
    assert bool(torch.isfinite(values_of(codes, grid)).all())


@settings(max_examples=150)
@given(
    st.integers(2, 8), st.booleans(), weights_and_masks(), st.sampled_from([min_max_grid, least_error_grid])
)
def test_an_integer_zero_point_makes_zero_a_grid_value(bits, per_channel, weight_and_mask, search):
    weight, kept = weight_and_mask
    spec = QuantizerSpec(bits, False, per_channel, "integer")
    grid = search(weight, spec, kept=kept)
    assert not quantized(torch.zeros_like(weight), grid).any()


@pytest.mark.parametrize("search", [min_max_grid, least_error_grid])
def test_even_the_smallest_floats_have_zero_on_their_grid(search):
    weight = torch.tensor([[-4.0, 0.0]]) * torch.finfo(torch.float32).smallest_normal * 2.0**-23
    assert bool(weight[0, 0] < 0)
    grid = search(weight, QuantizerSpec(2, zero_point="integer"))
    assert not quantized(torch.zeros(1), grid).any()


@given(specs(), weights_and_masks())
def test_removed_weights_do_not_count(spec, weight_and_mask):
    weight, kept = weight_and_mask
    if kept is None or not kept.any():
        return
    spec = replace(spec, per_channel=False)
    with_mask = min_max_grid(weight, spec, kept=kept)
    alone = min_max_grid(weight[kept][None], spec)
    assert torch.equal(with_mask.scale, alone.scale)
    assert spec.symmetric or torch.equal(with_mask.offset, alone.offset)


@pytest.mark.parametrize("search", [min_max_grid, least_error_grid])
@pytest.mark.parametrize("spec", every_spec(), ids=str)
def test_constant_rows_and_rows_without_weights_keep_their_values(spec, search):
    weight = torch.stack([torch.full((4,), 0.25), torch.zeros(4), torch.full((4,), -3.0), torch.ones(4)])
    kept = torch.ones_like(weight, dtype=torch.bool)
    kept[3] = False
    spec = replace(spec, per_channel=True)
    found = quantized(weight, search(weight, spec, kept=kept))
    torch.testing.assert_close(found[:3], weight[:3], rtol=1e-6, atol=0)


def test_least_error_is_what_it_says():
    """Every pair of scale and offset on a fine lattice is worse, or as good."""
    weight = random_weights((1, 40))
    spec = QuantizerSpec(2)
    found = error_norms(weight, None, least_error_grid(weight, spec)).item()
    tried = [
        error_norms(weight, None, Grid(spec, torch.tensor(scale), torch.tensor(offset))).item()
        for scale in np.linspace(0.4, 2, 41, dtype=np.float32)
        for offset in np.linspace(-3, 0, 61, dtype=np.float32)
    ]
    assert found <= min(tried) * 1.001
    assert found < 0.95 * error_norms(weight, None, min_max_grid(weight, spec)).item()


def test_a_symmetric_grid_has_no_zero_point():
    with pytest.raises(InputError, match="a symmetric grid has no zero point"):
        QuantizerSpec(4, True, zero_point="integer")


# learned steps


@given(specs(learned=True), weights_and_masks())
def test_learned_steps_start_from_their_grid(spec, weight_and_mask):
    weight, kept = weight_and_mask
    start = min_max_grid(weight, spec, kept=kept)
    grid = GridParameters(start).grid()
    assert torch.equal(grid.scale, start.scale)
    if spec.zero_point == "integer":
        assert torch.equal(grid.offset, start.offset)
    elif start.offset is not None:
        size = start.offset.abs() + spec.codes[1] * start.scale
        assert bool(((grid.offset - start.offset).abs() <= 1e-6 * size).all())


@given(specs(learned=True), st.integers(0, 100), st.floats(-3, 3).filter(lambda f: abs(f) > 1e-3))
def test_learned_grids_stay_grids_wherever_the_scale_moves(spec, seed, factor):
    weight = random_weights(seed=seed)
    parameters = GridParameters(min_max_grid(weight, spec))
    with torch.no_grad():
        parameters.scale.mul_(factor)
    grid = parameters.grid()
    assert bool((grid.scale > 0).all())
    assert torch.equal(parameters(weight, None), quantized(weight, grid))
    if spec.zero_point == "integer":
        assert not quantized(torch.zeros_like(weight), grid).any()


def test_moving_the_scale_leaves_the_middle_of_the_grid():
    parameters = GridParameters(min_max_grid(random_weights(), QuantizerSpec(4, learned=True)))
    middles = []
    for _ in range(2):
        grid = parameters.grid()
        middles.append((grid.offset + 7.5 * grid.scale).item())
        with torch.no_grad():
            parameters.scale.mul_(1.5)
    assert middles[0] == pytest.approx(middles[1], abs=1e-6)


def composed(weight, kept, parameters):
    """The formula of the paper, one operation of autograd at a time; its gradients are unscaled."""
    spec = parameters.spec
    low, high = spec.codes

    def along(p):
        return p.reshape(-1, *[1] * (weight.ndim - 1)) if p.ndim else p

    scale = along(parameters.scale.abs())
    base, zero = torch.zeros_like(scale), torch.zeros_like(scale)
    if spec.zero_point == "integer":
        zero = along(parameters.centre)
    elif not spec.symmetric:
        base, zero = along(parameters.centre), torch.full_like(scale, high / 2)
    clamped = ((weight - base) / scale + zero).clamp(low, high)
    codes = clamped + (clamped.round() - clamped).detach()
    return torch.where(kept, (codes - zero) * scale + base, 0.0)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("spec", every_spec(learned=True), ids=str)
def test_gradients_are_those_of_the_formula(spec, sign):
    weight, upstream = (random_weights(seed=s).double() for s in (1, 2))
    kept = random_weights(seed=3) > -0.5
    kept[2] = False  # a channel without weights
    weight = torch.where(kept, weight, 0.0)
    parameters = GridParameters(min_max_grid(weight, spec, kept=kept)).double()
    with torch.no_grad():
        parameters.scale.mul_(0.7 * sign)  # so that some weights are beyond the ends
        if spec.zero_point == "float" and not spec.symmetric:
            parameters.centre.add_(0.1)
    inputs = [weight.requires_grad_(), *(p for p in parameters.parameters() if p.requires_grad)]
    expected = torch.autograd.grad(
        (composed(weight, kept, parameters) * upstream).sum(), inputs, materialize_grads=True
    )
    found = torch.autograd.grad(
        (torch.where(kept, parameters(weight, kept), 0.0) * upstream).sum(), inputs, materialize_grads=True
    )
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=0)
    counts = kept.flatten(1).sum(dim=1) if spec.per_channel else kept.sum()
    reach = spec.codes[1] if spec.symmetric else spec.codes[1] / 2  # codes from the middle to the end
    factor = 1 / torch.sqrt((counts * reach).clamp(min=1).double())
    assert len(found) == (3 if spec.zero_point == "float" and not spec.symmetric else 2)
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        assert bool(ours.any())
        torch.testing.assert_close(ours, theirs * factor, rtol=1e-6, atol=1e-9)


def test_without_a_mask_all_weights_count():
    weight = random_weights().requires_grad_()
    parameters = GridParameters(min_max_grid(weight, QuantizerSpec(3, learned=True)))
    masks = (None, torch.ones_like(weight, dtype=torch.bool))
    gradients = [
        torch.autograd.grad(parameters(weight, kept).square().sum(), parameters.scale)[0] for kept in masks
    ]
    assert torch.equal(*gradients)


def test_a_grid_that_is_not_learned_gets_no_gradient():
    weight = random_weights().requires_grad_()
    parameters = GridParameters(least_error_grid(weight, QuantizerSpec(3, range="mse")))
    parameters(weight, None).sum().backward()
    assert weight.grad is not None
    assert all(p.grad is None for p in parameters.parameters())


# networks with such grids


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(torch.flatten(self.pool(self.relu(self.norm(self.conv(x)))), 1))


def trained_like(network, *, masked, spec, layers=None, seed=0):
    """Compressed, with batch norms as after a training and grids a little off their first place."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(-1.5, 1.5)
            module.bias.data.normal_()
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    weights = {n: w for n, w in weight_layers(network).items() if layers is None or n in layers}
    masks = prune_per_layer(weights, sparsity=0.6) if masked else {}
    compressed = CompressedNetwork(network, masks=masks, quantizers=dict.fromkeys(weights, spec))
    with torch.no_grad():
        for parameter in compressed.grid_parameters():
            parameter.mul_(torch.empty_like(parameter).uniform_(0.8, 1.1))
    return compressed.eval()


KEPT_GRIDS = [
    QuantizerSpec(bits, symmetric, per_channel, zero_point, *how)
    for bits, how in ((3, ("min-max", True)), (4, ("mse", False)), (2, ("mse", True)))
    for symmetric, zero_point in KINDS
    for per_channel in (False, True)
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("spec", [*KEPT_GRIDS, QuantizerSpec(4, zero_point="integer")], ids=str)
def test_a_frozen_network_holds_the_weights_of_the_forward_pass(tmp_path, spec, masked):
    compressed = trained_like(Small(), masked=masked, spec=spec)
    model = freeze(compressed, image_inputs(height=8, width=8), metadata={})
    write_artifact(tmp_path / "small.press", model)
    read = read_artifact(tmp_path / "small.press").quantized()
    for name, weight in compressed.effective_weights().items():
        tensor, trained = read[f"{name}.weight"], weight.detach().numpy()
        np.testing.assert_array_equal(replace(tensor, channel_scale=None).dequantize(), trained)
        factor = tensor.channel_scale
        folded = trained if factor is None else trained * factor.reshape(-1, 1, 1, 1)
        np.testing.assert_array_equal(tensor.dequantize(), folded)
        if masked:
            assert not tensor.dequantize()[~compressed.masks[name].numpy()].any()


LAYERS = ("head_conv.0.conv", "body_op.0.conv1.0.conv", "final_fc.linear")


@pytest.mark.parametrize("spec", KEPT_GRIDS[::2] + KEPT_GRIDS[-1:], ids=str)
def test_kept_grids_survive_the_network_file(tmp_path, spec):
    compressed = trained_like(ResNetCifar(), masked=True, spec=spec, layers=LAYERS)
    state = NetworkState(
        compressed.network,
        ModelOptions(),
        compressed.masks,
        compressed.quantizers,
        compressed.kept_grids(),
    )
    before = {name: w.detach().clone() for name, w in compressed.effective_weights().items()}
    save_network(tmp_path / "n.safetensors", state)
    loaded = load_network(tmp_path / "n.safetensors", ModelOptions())
    assert loaded.quantizers == state.quantizers
    after = loaded.compressed().effective_weights()
    assert after.keys() == before.keys() == set(LAYERS)
    for name, weight in before.items():
        assert torch.equal(after[name], weight), name


@pytest.mark.parametrize(
    "grid",
    [
        {"scale": [1.0, 2.0], "centre": 0.0},
        {"scale": 1.0},
        {"scale": 1.0, "centre": 0.0, "more": 0.0},
        {"scale": "wide", "centre": 0.0},
        {"scale": 0.0, "centre": 0.0},
        {"scale": float("nan"), "centre": 0.0},
        {"scale": 1.0, "centre": float("inf")},
        3,
    ],
)
def test_damaged_grids_are_named(tmp_path, grid):
    spec = QuantizerSpec(4, learned=True)
    compressed = trained_like(ResNetCifar(), masked=False, spec=spec, layers=LAYERS[:1])
    path = tmp_path / "n.safetensors"
    save_network(
        path,
        NetworkState(compressed.network, ModelOptions(), {}, compressed.quantizers, compressed.kept_grids()),
    )
    tensors, metadata = load_state(path)
    metadata["grids"][LAYERS[0]] = grid
    save_state(path, tensors, metadata)
    with pytest.raises(InputError, match="damaged"):
        load_network(path, ModelOptions())


def test_copies_of_kept_grids_do_not_move_with_the_training():
    compressed = trained_like(Small(), masked=False, spec=QuantizerSpec(4, learned=True))
    copies = compressed.kept_grids()
    before = {name: {k: v.clone() for k, v in grid.items()} for name, grid in copies.items()}
    with torch.no_grad():
        for parameter in compressed.grid_parameters():
            parameter.add_(1)
    assert all(torch.equal(copies[n][k], before[n][k]) for n in before for k in before[n])


def test_grids_are_taken_anew_from_the_weights_of_the_moment():
    spec = QuantizerSpec(4, range="mse", learned=True)
    compressed = trained_like(Small(), masked=True, spec=spec)
    with torch.no_grad():
        for name in compressed.quantizers:
            compressed.dense_weight(name).mul_(3)
    compressed.renew_grids()
    for name in compressed.quantizers:
        weight = compressed.masked(name)
        expected = least_error_grid(weight, spec, kept=compressed.masks[name])
        assert torch.equal(compressed.grid(name).scale, expected.scale)


def test_switched_off_quantizers_leave_floats():
    compressed = trained_like(Small(), masked=True, spec=QuantizerSpec(4, learned=True))
    compressed.quantized = False
    for name, weight in compressed.effective_weights().items():
        assert torch.equal(weight, compressed.masked(name))
    compressed.quantized = True
    name = "conv"
    expected = torch.where(
        compressed.masks[name], quantized(compressed.masked(name), compressed.grid(name)), 0.0
    )
    assert torch.equal(compressed.effective_weight(name), expected)


def test_a_grid_that_follows_the_weights_is_computed_from_kept_ones():
    compressed = trained_like(Small(), masked=True, spec=QuantizerSpec(4))
    assert not compressed.kept_grids()
    weight, mask = compressed.masked("conv"), compressed.masks["conv"]
    grid = min_max_grid(weight, QuantizerSpec(4), kept=mask)
    assert torch.equal(
        compressed.effective_weight("conv"), torch.where(mask, fake_quantize(weight, grid), 0.0)
    )
