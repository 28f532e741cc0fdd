import numpy as np
import pytest

from modelpress.export.graphs.activations import MOST_ACTIVATION_BYTES, activation_sizes
from modelpress.export.graphs.check import stand_in
from modelpress.export.onnx_flavours.int8 import activations_to_calibrate
from modelpress.export.post_training.calibration import calls_of
from tests.helpers.foreign_onnx import NODE, foreign
from tests.helpers.graph_builder import INPUT, GraphBuilder

WEIGHTS = {"w": np.zeros((8, 1, 3, 3), np.float32)}
CHAIN = [
    NODE("Conv", ["x", "w"], ["a"], pads=[1] * 4),
    NODE("Relu", ["a"], ["b"]),
    NODE("Conv", ["x", "w"], ["c"], pads=[1] * 4),
    NODE("Add", ["b", "c"], ["y"]),
]
IMAGE, MAP = 4 * 16 * 16, 4 * 8 * 16 * 16


def sizes_of(nodes, weights=WEIGHTS, n=1, **options):
    model = foreign(nodes, weights, x=("N", 1, 16, 16), y=None, **options)
    return activation_sizes(model, {"x": (n, 1, 16, 16)})


@pytest.mark.parametrize("n", [1, 10])
def test_sizes_are_those_of_the_arrays_and_the_peak_that_of_the_most_at_a_time(n):
    sizes = sizes_of(CHAIN, n=n)
    assert sizes.by_name == {"x": n * IMAGE, **dict.fromkeys("abcy", n * MAP)}
    assert sizes.peak == n * max(IMAGE + 2 * MAP, 3 * MAP)
    assert sizes.observed(["a", "b"]) == sizes.peak + 2 * n * MAP


def test_what_is_computed_of_weights_is_no_activation():
    nodes = [NODE("Neg", ["w"], ["v"]), NODE("Conv", ["x", "v"], ["y"], pads=[1] * 4)]
    assert set(sizes_of(nodes).by_name) == {"x", "y"}


def test_what_cannot_be_inferred_counts_as_the_largest():
    nodes = [*CHAIN[:1], NODE("Unheard", ["a"], ["y"], domain="of.somebody")]
    assert sizes_of(nodes).by_name["y"] == MAP


def large(channels=32):
    builder = GraphBuilder("large", (1, 256, 256))
    weight = np.ones((channels, 1, 3, 3), np.float32)
    x = builder.relu(builder.conv("conv", INPUT, weight, np.zeros(channels, np.float32), stride=1, padding=1))
    return builder.finish(builder.flatten(builder.global_average_pool(x)), n_outputs=channels, metadata={})


def test_calibration_runs_few_large_inputs_at_a_time_and_many_small_ones():
    model, inputs = large(), np.random.default_rng(0).random((20, 1, 256, 256), np.float32)
    observed = activations_to_calibrate(model)
    calls = calls_of(model, inputs, batch=32, observed=observed)
    (first, *_) = (len(call[INPUT]) for call in calls)
    bytes_at_once = activation_sizes(
        stand_in(model), {INPUT: (first, 1, 256, 256)}, weights=model.tensors
    ).observed(observed)
    assert 1 <= first < 20
    assert bytes_at_once <= MOST_ACTIVATION_BYTES
    assert np.concatenate([call[INPUT] for call in calls]).shape == inputs.shape
    assert len(calls_of(model, inputs, batch=32)[0][INPUT]) >= first
