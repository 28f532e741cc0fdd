"""Quantizing one array after training."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

from modelpress.export.errors import ModelError
from modelpress.export.post_training import rounding as post_training
from modelpress.export.post_training.rounding import PostTraining, quantize_weight
from modelpress.export.quantized import QuantizedTensor

OPTIONS = st.builds(
    PostTraining,
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
    sparsity=st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]),
)


def normal(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def along(parameter, axis, ndim):
    """A parameter as it broadcasts."""
    return (
        np.asarray(parameter)
        if axis is None
        else np.reshape(parameter, [-1 if i == axis else 1 for i in range(ndim)])
    )


def by_definition(weight, options, axis):
    """Codes, scale, offset and mask of what stays, the slow and obvious way."""
    flat = weight.astype(np.float32).reshape(-1)
    order = np.argsort(np.abs(flat), kind="stable")
    kept = flat != 0
    kept[order[: round(options.sparsity * flat.size)]] = False
    kept = kept.reshape(weight.shape)
    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    values = weight.astype(np.float32)
    low = np.where(kept, values, np.inf).min(axis=others, initial=np.inf).astype(np.float32)
    high = np.where(kept, values, -np.inf).max(axis=others, initial=-np.inf).astype(np.float32)
    low, high = (
        np.where(low > high, 0, low).astype(np.float32),
        np.where(low > high, 0, high).astype(np.float32),
    )
    levels = 2 ** (options.bits - 1) - 1 if options.symmetric else 2**options.bits - 1
    span = np.maximum(abs(low), abs(high)) if options.symmetric else high - low
    scale = np.where(span > 0, span / np.float32(levels), 1).astype(np.float32)
    offset = np.zeros_like(low) if options.symmetric else low
    shifted = values - along(offset, axis, weight.ndim)
    lowest = -levels if options.symmetric else 0
    codes = np.clip(np.rint(shifted / along(scale, axis, weight.ndim)), lowest, levels)
    return np.where(kept, codes, 0), scale, offset, kept


@pytest.mark.parametrize("block", [1, 5, 1 << 20])
@given(
    weight=hnp.arrays(
        st.sampled_from([np.float32, np.float16]),
        hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5),
        elements=st.sampled_from([-2.0, -1.0, -0.25, 0.0, 0.25, 0.3, 1.0, 1.5]),
    ),
    options=OPTIONS,
    data=st.data(),
)
def test_codes_are_those_of_the_definition_however_blocks_are_cut(block, weight, options, data):
    axis = data.draw(st.sampled_from([None, *range(weight.ndim)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(post_training, "BLOCK_ELEMENTS", block)
        tensor = quantize_weight(weight, options, channel_axis=axis)
    codes, scale, offset, kept = by_definition(weight, options, axis)
    assert_array_equal(tensor.codes, codes)
    assert_array_equal(tensor.scale, scale)
    if not options.symmetric:
        assert_array_equal(tensor.offset, offset)
        assert_array_equal(tensor.nonzero, kept)
    assert tensor.channel_axis == (axis or 0)
    assert tensor.dequantize().dtype == weight.dtype


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 5, 8])
def test_weights_come_back_within_half_a_step(axis, symmetric, bits):
    weight = normal(6, 5, 40)
    tensor = quantize_weight(weight, PostTraining(bits, symmetric), channel_axis=axis)
    half_a_step = along(tensor.scale, axis, 3) / 2
    assert (np.abs(tensor.dequantize() - weight) <= half_a_step * 1.0001).all()


@pytest.mark.parametrize("n_removed", [0, 1, 499, 500, 1000])
def test_exactly_the_smallest_magnitudes_go(n_removed):
    weight = normal(20, 50)
    options = PostTraining(8, symmetric=False, sparsity=n_removed / 1000)
    tensor = quantize_weight(weight, options, channel_axis=0)
    removed = tensor.dequantize() == 0
    assert removed.sum() == n_removed
    if 0 < n_removed < 1000:
        assert np.abs(weight[removed]).max() < np.abs(weight[~removed]).min()


def test_of_equal_magnitudes_the_earlier_goes():
    weight = np.array([[1, -1, 1, -1, 2, 1]], np.float32)
    tensor = quantize_weight(weight, PostTraining(8, symmetric=False, sparsity=0.5), channel_axis=None)
    assert_array_equal(tensor.support, [[False, False, False, True, True, True]])


@pytest.mark.parametrize("symmetric", [True, False])
def test_zeros_stay_exactly_zero(symmetric):
    weight = normal(8, 30)
    weight[2, ::3] = 0
    weight[5] = -0.0
    tensor = quantize_weight(weight, PostTraining(3, symmetric), channel_axis=0)
    decoded = tensor.dequantize()
    assert not decoded[weight == 0].any()
    assert not np.signbit(decoded[weight == 0]).any()


def test_the_grid_covers_only_what_is_not_zero():
    weight = np.array([[0, 5, 6, 7, 8]], np.float32)
    tensor = quantize_weight(weight, PostTraining(2), channel_axis=None)
    assert_array_equal(tensor.dequantize(), weight)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [0, 3.5, -3.5, 1e-30])
def test_constant_tensors_come_back(symmetric, value):
    weight = np.full((3, 4), value, np.float32)
    tensor = quantize_weight(weight, PostTraining(4, symmetric), channel_axis=0)
    np.testing.assert_allclose(tensor.dequantize(), weight, rtol=1e-6)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
@pytest.mark.parametrize("axis", [None, 0])
def test_empty_tensors_have_no_codes(shape, axis):
    tensor = quantize_weight(np.zeros(shape, np.float32), PostTraining(sparsity=0.5), channel_axis=axis)
    assert tensor.codes.shape == shape


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(bad):
    weight = normal(3, 4)
    weight[1, 2] = bad
    with pytest.raises(ModelError, match="NaN or infinity"):
        quantize_weight(weight, PostTraining(sparsity=0.5), channel_axis=0)


def test_codes_of_8_bits_lie_around_zero_unless_asked_otherwise():
    weight = np.abs(normal(4, 100))
    kinds = [PostTraining(), PostTraining(7), PostTraining(symmetric=False), PostTraining(7, symmetric=True)]
    offsets = [quantize_weight(weight, options, channel_axis=0).offset for options in kinds]
    assert [offset is None for offset in offsets] == [True, False, False, True]


@pytest.mark.parametrize(
    ("weight", "symmetric"),
    [
        (np.array([[-3e38, 3e38]], np.float32), False),  # the range overflows
        (np.array([[-3e38, 3e38]], np.float32), True),  # beyond what a tensor may decode to
        (np.array([[-1e38, 9e37]], np.float32), False),  # likewise, by the bound of offset and codes together
        (np.array([[1e-44, 2e-44]], np.float32), None),  # a step below the normal numbers
        (np.array([[-60000, 60000]], np.float16), False),  # the bound of the decoded values overflows
    ],
)
def test_ranges_without_a_grid_leave_the_tensor_as_it_is(weight, symmetric):
    assert quantize_weight(weight, PostTraining(symmetric=symmetric), channel_axis=0) is weight


def test_a_channel_of_negligible_weights_does_not_hinder_the_others():
    weight = normal(3, 50)
    weight[1] *= np.float32(1e-42)
    tensor = quantize_weight(weight, PostTraining(), channel_axis=0)
    assert isinstance(tensor, QuantizedTensor)
    np.testing.assert_allclose(tensor.dequantize(), weight, atol=0.02)


@pytest.mark.parametrize("order", ["F", "strided", "big-endian", "unaligned"])
def test_the_layout_in_memory_does_not_matter(order):
    weight = normal(6, 10)
    laid_out = {
        "F": lambda: np.asfortranarray(weight),
        "strided": lambda: np.repeat(weight, 2, axis=1)[:, ::2],
        "big-endian": lambda: weight.astype(">f4"),
        "unaligned": lambda: np.frombuffer(b"x" + weight.tobytes(), "<f4", 60, 1).reshape(6, 10),
    }[order]()
    options = PostTraining(4, sparsity=0.3)
    expected = quantize_weight(weight, options, channel_axis=1)
    assert quantize_weight(laid_out, options, channel_axis=1).equals(expected)


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, np.nan])
def test_a_sparsity_that_is_no_fraction_is_refused(sparsity):
    with pytest.raises(ModelError, match="expected a fraction from 0 to 1"):
        PostTraining(sparsity=sparsity)


def test_widths_outside_2_to_8_are_refused():
    with pytest.raises(ModelError, match="code width is 9 bits"):
        PostTraining(bits=9)
