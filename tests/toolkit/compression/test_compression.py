import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from modelpress.export.errors import InputError, ModelError
from modelpress.export.onnx_flavours import emit
from modelpress.export.quantized import QuantizedTensor
from modelpress.export.runtime import open_session, run_batched
from modelpress.toolkit.compression.choosing import layers_chosen, layers_left
from modelpress.toolkit.compression.freeze import freeze
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.pruning.magnitude import prune_global, prune_per_layer
from modelpress.toolkit.compression.quantization.quantizers import (
    QuantizerSpec,
    codes_of,
    fake_quantize,
    min_max_grid,
    values_of,
)
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.networks.inputs import image_inputs
from modelpress.toolkit.networks.layers import matching, weight_layers
from modelpress.toolkit.networks.resnet_cifar import ResNetCifar
from modelpress.toolkit.recipe import ModelOptions

specs = st.builds(QuantizerSpec, st.integers(2, 8), st.booleans(), st.booleans())


def weights(seed, shape=(6, 5, 3, 3)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def trained_like(**options):
    """A network whose batch norm statistics are not those of a fresh one; some gammas are negative."""
    torch.manual_seed(5)
    network = ResNetCifar(**options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(-1.5, 1.5)
            module.bias.data.normal_()
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.eval()


@given(st.integers(0, 100), st.floats(0, 1))
def test_exactly_the_asked_for_number_of_weights_goes(seed, sparsity):
    layers = {"a": weights(seed), "b": 0.1 * weights(seed + 1, (7, 3))}
    masks = prune_global(layers, sparsity=sparsity)
    total = sum(w.numel() for w in layers.values())
    assert sum(int((~m).sum()) for m in masks.values()) == round(sparsity * total)
    kept = torch.cat([layers[n][m].abs() for n, m in masks.items()])
    gone = torch.cat([layers[n][~m].abs() for n, m in masks.items()])
    if kept.numel() and gone.numel():
        assert gone.max() <= kept.min()
    for name, mask in prune_per_layer(layers, sparsity=sparsity).items():
        assert int((~mask).sum()) == round(sparsity * layers[name].numel())


def test_ties_are_broken_by_position():
    masks = prune_global({"a": torch.ones(4), "b": torch.ones(4)}, sparsity=0.375)
    assert masks["a"].tolist() == [False, False, False, True]
    assert masks["b"].all()


@pytest.mark.parametrize("sparsity", [-0.1, 1.1])
def test_sparsity_outside_its_range_is_refused(sparsity):
    with pytest.raises(InputError, match="expected a fraction from 0 to 1"):
        prune_global({"a": torch.ones(4)}, sparsity=sparsity)


def test_patterns_choose_layers_and_must_match():
    layers = weight_layers(ResNetCifar())
    assert len(layers) == 22
    assert sum(w.numel() for w in layers.values()) == 270_896
    state = NetworkState(ResNetCifar(), ModelOptions())
    prunable = layers_left(state, layers, ["role:shortcut"])
    assert list(prunable) == list(layers_left(state, layers, ["*id_mapping*"]))
    assert sum(w.numel() for w in prunable.values()) == 268_336
    with pytest.raises(InputError, match="pattern 'typo\\*' matches no layer"):
        matching(layers, "typo*")
    with pytest.raises(InputError, match="role:middle: there is no such part; expected role:first"):
        layers_chosen(state, "role:middle")


@given(specs, st.integers(0, 50))
def test_rounding_errs_by_half_a_step_at_most(spec, seed):
    weight = weights(seed)
    grid = min_max_grid(weight, spec)
    error = (values_of(codes_of(weight, grid), grid) - weight).abs()
    step = grid.scale.reshape(-1, 1, 1, 1) if spec.per_channel else grid.scale
    assert bool((error <= 0.5 * step * (1 + 1e-4)).all())


def test_asymmetric_grid_is_the_reference_formula():
    w, n = weights(0), 4
    alpha, beta = w.max() - w.min(), w.min()
    expected = torch.round((w - beta) / alpha * (2**n - 1)) / (2**n - 1) * alpha + beta
    grid = min_max_grid(w, QuantizerSpec(n))
    torch.testing.assert_close(values_of(codes_of(w, grid), grid), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("constant", [0.0, -0.25])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_constant_layer_quantizes_to_itself(constant, symmetric):
    w = torch.full((2, 3), constant)
    grid = min_max_grid(w, QuantizerSpec(4, symmetric))
    torch.testing.assert_close(values_of(codes_of(w, grid), grid), w)


def test_gradient_passes_straight_through():
    w = weights(1).requires_grad_()
    grid = min_max_grid(w, QuantizerSpec(2))
    (fake_quantize(w, grid) * 3).sum().backward()
    assert torch.equal(w.grad, torch.full_like(w, 3.0))


def test_removed_weights_stay_zero_and_get_no_gradient():
    network = ResNetCifar()
    layers = weight_layers(network)
    masks = prune_global(layers, sparsity=0.7)
    specs = dict.fromkeys(layers, QuantizerSpec(4))
    compressed = CompressedNetwork(network, masks=masks, quantizers=specs)
    optimiser = torch.optim.SGD(compressed.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    for step in range(3):
        loss = (
            compressed(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(step)))
            .square()
            .mean()
        )
        optimiser.zero_grad()
        loss.backward()
        for name, mask in masks.items():
            assert not layers[name].grad[~mask].any()
        optimiser.step()
        for name, weight in compressed.effective_weights().items():
            assert not weight[~masks[name]].any()
            assert int((weight != 0).sum()) > 0
    compressed.settle()
    for name, mask in masks.items():
        assert not layers[name][~mask].any()


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(InputError, match="mask has shape"):
        CompressedNetwork(
            ResNetCifar(), masks={"final_fc.linear": torch.ones(1, 1, dtype=torch.bool)}, quantizers={}
        )


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize(
    "spec", [None, QuantizerSpec(4), QuantizerSpec(4, True, True), QuantizerSpec(8, False, True)]
)
def test_frozen_network_computes_what_torch_does(shortcut, spec):
    network = trained_like(shortcut=shortcut)
    layers = weight_layers(network)
    masks = prune_global(layers, sparsity=0.6)
    compressed = CompressedNetwork(
        network, masks=masks, quantizers={} if spec is None else dict.fromkeys(layers, spec)
    )
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = compressed(images).detach().numpy()
    model = freeze(compressed, image_inputs(), metadata={})
    found = run_batched(open_session(emit(model, flavour="float").SerializeToString()), images.numpy())
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())
    for name, mask in masks.items():
        tensor = model.tensors[f"{name}.weight"]
        dense = tensor.dequantize() if isinstance(tensor, QuantizedTensor) else tensor
        assert not dense[~mask.numpy()].any()


def test_codes_stay_what_training_used():
    network = trained_like()
    compressed = CompressedNetwork(network, masks={}, quantizers={"body_op.0.conv1.0.conv": QuantizerSpec(4)})
    trained = codes_of(
        weight_layers(network)["body_op.0.conv1.0.conv"], compressed.grid("body_op.0.conv1.0.conv")
    )
    model = freeze(compressed, image_inputs(), metadata={})
    frozen = model.tensors["body_op.0.conv1.0.conv.weight"]
    np.testing.assert_array_equal(frozen.codes, trained.detach().numpy())


class Odd(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.conv, self.layer = nn.Conv2d(3, 4, 3), layer

    def forward(self, x):
        return self.layer(self.conv(x))


class Undecided(nn.Module):
    """Not even torch knows what it is called with."""

    def forward(self, x):
        raise RuntimeError("no weather for this")


def test_a_network_that_cannot_be_called_is_told_with_the_reason():
    with pytest.raises(ModelError, match=r"example input of shape \(2, 3, 8, 8\): RuntimeError: no weather"):
        freeze(
            CompressedNetwork(Odd(Undecided()), masks={}, quantizers={}),
            image_inputs(height=8, width=8),
            metadata={},
        )


def test_weights_that_are_not_finite_are_named():
    network = trained_like()
    weight_layers(network)["final_fc.linear"].data[0, 0] = torch.nan
    with pytest.raises(ModelError, match="final_fc.linear"):
        freeze(CompressedNetwork(network, masks={}, quantizers={}), image_inputs(), metadata={})


def test_per_channel_grids_have_one_scale_per_output():
    grid = min_max_grid(weights(2), QuantizerSpec(4, False, True))
    assert grid.scale.shape == grid.offset.shape == (6,)
