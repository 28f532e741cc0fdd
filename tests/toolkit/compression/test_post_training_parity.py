"""Quantization after training without torch, and the grids of training: the same codes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from modelpress.export.graphs.batch_norm import folded
from modelpress.export.grids import GridSpec, codes_of, min_max_grid, values_of
from modelpress.export.least_error import least_error_grid
from modelpress.export.post_training.rounding import PostTraining, quantize_weight

torch = pytest.importorskip("torch")
from modelpress.toolkit.compression.pruning.magnitude import prune_per_layer  # noqa: E402 - after the check for torch
from modelpress.toolkit.compression.quantization.quantizers import QuantizerSpec  # noqa: E402


def weights():
    return np.random.default_rng(1).standard_normal((16, 8, 3, 3)).astype(np.float32)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("per_channel", [True, False])
def test_codes_and_grids_are_those_of_training(bits, symmetric, per_channel):
    weight = torch.from_numpy(weights())
    grid = min_max_grid(weight, QuantizerSpec(bits, symmetric, per_channel))
    tensor = quantize_weight(
        weights(), PostTraining(bits, symmetric), channel_axis=0 if per_channel else None
    )
    assert_array_equal(tensor.codes, codes_of(weight, grid).numpy())
    assert_array_equal(tensor.scale, grid.scale.numpy())
    if not symmetric:
        assert_array_equal(tensor.offset, grid.offset.numpy())


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.333, 1.0])
def test_the_same_weights_are_pruned(sparsity):
    weight = np.round(weights(), 1)  # many equal magnitudes
    weight[weight == 0] = 0.1
    kept = prune_per_layer({"w": torch.from_numpy(weight)}, sparsity=sparsity)["w"]
    tensor = quantize_weight(weight, PostTraining(sparsity=sparsity), channel_axis=0)
    assert_array_equal(tensor.nonzero, kept.numpy())


def test_pruned_symmetric_codes_are_those_of_training():
    kept = prune_per_layer({"w": torch.from_numpy(weights())}, sparsity=0.7)["w"]
    masked = torch.where(kept, torch.from_numpy(weights()), 0.0)
    grid = min_max_grid(masked, QuantizerSpec(4, symmetric=True, per_channel=True))
    tensor = quantize_weight(weights(), PostTraining(4, symmetric=True, sparsity=0.7), channel_axis=0)
    assert_array_equal(tensor.codes, codes_of(masked, grid).numpy())


SPECS = [
    GridSpec(3),
    GridSpec(4, symmetric=True),
    GridSpec(2, per_channel=True),
    GridSpec(4, per_channel=True, zero_point="integer"),
]


def both(search, spec, *, pruned):
    """The grid that a search finds for NumPy, and for torch."""
    weight = weights()
    kept = np.abs(weight) > 0.5 if pruned else None
    tensor = None if kept is None else torch.from_numpy(kept)
    return search(weight, spec, kept=kept), search(torch.from_numpy(weight), spec, kept=tensor)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("pruned", [False, True])
def test_grids_are_the_same_for_numpy_and_torch(spec, pruned):
    weight = weights()
    ours, theirs = both(min_max_grid, spec, pruned=pruned)
    assert_array_equal(ours.scale, theirs.scale.numpy())
    assert (ours.offset is None) == (theirs.offset is None)
    if ours.offset is not None:
        assert_array_equal(ours.offset, theirs.offset.numpy())
    codes = codes_of(weight, ours)
    assert_array_equal(codes, codes_of(torch.from_numpy(weight), theirs).numpy())
    assert_array_equal(values_of(codes, ours), values_of(torch.from_numpy(codes), theirs).numpy())


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("pruned", [False, True])
def test_least_error_grids_are_the_same_but_for_the_order_of_sums(spec, pruned):
    ours, theirs = both(least_error_grid, spec, pruned=pruned)
    assert_allclose(ours.scale, theirs.scale.numpy(), rtol=1e-6)
    if ours.offset is not None:
        assert_allclose(ours.offset, theirs.offset.numpy(), rtol=1e-6)


def test_batch_norm_folds_the_same_for_numpy_and_torch():
    gamma, beta, mean, variance, bias = np.random.default_rng(2).uniform(0.1, 2, (5, 32))
    ours = folded(gamma, beta, mean, variance, epsilon=1e-5, bias=bias)
    tensors = map(torch.from_numpy, (gamma, beta, mean, variance))
    theirs = folded(*tensors, epsilon=1e-5, bias=torch.from_numpy(bias))
    for left, right in zip(ours, theirs, strict=True):
        assert_allclose(left, right.numpy(), rtol=1e-14)  # some builds round division or root in the last bit
