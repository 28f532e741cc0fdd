"""Quantization after training without torch, and the grids of training: the same codes."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from modelpress.export.post_training.rounding import PostTraining, quantize_weight

torch = pytest.importorskip("torch")
from modelpress.toolkit.compression.pruning.magnitude import prune_per_layer  # noqa: E402 - after the check for torch
from modelpress.toolkit.compression.quantization.quantizers import QuantizerSpec, codes_of, min_max_grid  # noqa: E402


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
