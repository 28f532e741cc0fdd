"""Weights that lie on a grid already."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from modelpress.export.post_training.known_grids import weight_on_grid
from modelpress.export.post_training.rounding import PostTraining, quantize_weight


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@given(
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
    sparsity=st.sampled_from([0.0, 0.5]),
    axis=st.sampled_from([None, 0, 1]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_what_was_decoded_is_recognised_bit_for_bit(bits, symmetric, sparsity, axis, seed):
    shape = (600, 6) if axis else (6, 600)  # a few values would not tell how far apart the codes are
    weight = normal(*shape, seed=seed) * np.float32(0.03)
    decoded = quantize_weight(weight, PostTraining(bits, symmetric, sparsity), channel_axis=axis).dequantize()
    found = weight_on_grid(decoded, channel_axis=axis or 0, signed_zeros=True)
    assert found is not None
    assert found.dequantize().tobytes() == decoded.tobytes()


@pytest.mark.parametrize("shape", [(60, 80), (300, 1, 3, 3), (4, 2000)])
def test_weights_of_no_grid_are_left_alone(shape):
    assert weight_on_grid(normal(*shape), channel_axis=0) is None


@pytest.mark.parametrize("change", [2e-7, 1e-3])
def test_one_value_beside_the_grid_is_enough(change):
    weight = np.rint(normal(30, 30) * 9) * np.float32(0.05) + np.float32(0)
    assert weight_on_grid(weight, channel_axis=0, signed_zeros=True) is not None
    weight[3, 4] = weight[3, 4] * np.float32(1 + change) + np.float32(change)
    assert weight_on_grid(weight, channel_axis=None) is None


def test_signs_of_zeros_count_only_where_asked_for():
    weight = np.array([[0.5, -0.0], [0.25, 1.0]], np.float32)
    found = weight_on_grid(weight, channel_axis=None)
    assert found is not None
    assert_array_equal(found.dequantize(), weight)
    assert weight_on_grid(weight, channel_axis=None, signed_zeros=True) is None


@pytest.mark.parametrize(
    "values", [[1e-45, 3e38], [-1e30, 1.0, 2.0], [np.finfo(np.float32).max] * 2, [0.0, 0.0]]
)
def test_extreme_values_give_codes_that_are_exact_or_none(values):
    weight = np.resize(np.array(values, np.float32), (4, 4))
    found = weight_on_grid(weight, channel_axis=0)
    assert found is None or np.array_equal(found.dequantize(), weight)
