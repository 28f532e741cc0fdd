from dataclasses import replace

import numpy as np
import pytest

from modelpress.export.onnx_flavours.int8_scales import least_error_scales
from modelpress.export.onnx_flavours.int8_weights import SearchedWeight
from modelpress.export.post_training.rounding import PostTraining, quantize_weight
from tests.helpers.samples import quantized

LIMIT = 127


def scales_of(tensor):
    step = np.asarray(tensor.scale, np.float64)
    start = np.zeros_like(step) if tensor.offset is None else np.asarray(tensor.offset, np.float64)
    return least_error_scales(tensor, step, start, LIMIT)


def disturbance(values, scale):
    error = np.rint(values / scale) * scale - values
    return (error**2).sum() + 0.5 * error.sum() ** 2


@pytest.mark.parametrize("flags", ["p", "op", "osp", "ospc", "pc"])
@pytest.mark.parametrize("bits", [3, 8])
def test_channels_searched_together_get_what_each_gets_alone(flags, bits):
    tensor = quantized((40, 5, 3, 1), bits=bits, flags=flags, seed=bits)
    together = scales_of(tensor)
    assert together.shape == (40,)

    for channel, scale in enumerate(together):
        part = slice(channel, channel + 1)
        alone = replace(
            tensor,
            codes=tensor.codes[part],
            scale=tensor.scale[part],
            offset=None if tensor.offset is None else tensor.offset[part],
            channel_scale=None if tensor.channel_scale is None else tensor.channel_scale[part],
            support=None if tensor.support is None else tensor.support[part],
        )
        assert scales_of(alone)[0] == scale


def test_no_scale_of_a_fine_sweep_disturbs_a_channel_less():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((12, 30)).astype(np.float32)
    tensor = quantize_weight(weight, PostTraining(bits=5), channel_axis=0)

    for values, scale in zip(tensor.dequantize().astype(np.float64), scales_of(tensor), strict=True):
        finest = np.abs(values).max() / LIMIT
        assert finest * (1 - 1e-6) <= scale <= finest / 0.6 * (1 + 1e-6)
        others = finest / np.linspace(0.6, 1, 300)
        assert disturbance(values, scale) <= 1.05 * min(disturbance(values, other) for other in others)


@pytest.mark.parametrize("bits", [7, 8])
def test_codes_on_both_sides_of_zero_stay_what_they_are(bits):
    rng = np.random.default_rng(bits)
    weight = rng.standard_normal((6, 4, 3, 3)).astype(np.float32)
    tensor = quantize_weight(weight, PostTraining(bits=bits, symmetric=True), channel_axis=0)
    made = SearchedWeight.of(tensor, channel_axis=0).int8("w")

    times = 1 if bits == 8 else 2  # 7 bits fill half of the range
    assert np.array_equal(made.codes(), times * tensor.codes)
    assert np.array_equal(made.scale * np.float32(times), tensor.scale)


def test_symmetric_codes_beyond_the_limit_are_searched():
    weight = np.linspace(-1, 1, 600, dtype=np.float32).reshape(2, 300)
    tensor = quantize_weight(weight, PostTraining(bits=8, symmetric=True), channel_axis=0)
    made = SearchedWeight.of(tensor, channel_axis=0, limit=63).int8("w")
    assert np.abs(made.codes()).max() <= 63
    assert np.abs(made.codes() * made.scale[:, None] - tensor.dequantize()).max() <= made.scale.max()
