import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from modelpress.export.choices import CalibrationMethod
from modelpress.export.errors import InputError, ModelError
from modelpress.export.graphs.initializers import with_initializers
from modelpress.export.onnx_flavours import int8
from modelpress.export.post_training.calibration import CalibrationOptions, calibrate
from modelpress.export.post_training.observers import (
    GrowingHistogram,
    Histogram,
    entropy_range,
    least_error_range,
    percentile_range,
)
from modelpress.export.quantized import dense_array
from modelpress.export.runtime import open_session
from tests.helpers.graph_builder import INPUT, GraphBuilder
from tests.helpers.models import small_model

METHODS = [
    method for method in CalibrationMethod if method is not CalibrationMethod.BEST
]  # of one activation
PIXELS = json.dumps({"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]})


def images(n=40, seed=0, shape=(2, 6, 6)):
    return np.random.default_rng(seed).standard_normal((n, *shape)).astype(np.float32)


def relu_network(metadata=None, shape=(3, 4, 4)):
    builder = GraphBuilder("relu", shape)
    x = builder.relu(INPUT)
    return builder.finish(builder.flatten(x), n_outputs=int(np.prod(shape)), metadata=metadata or {})


def histogram_of(values, bins=2048):
    values = np.asarray(values, np.float32)
    histogram = Histogram(
        min(float(values.min()), 0.0), max(float(values.max()), 0.0), np.zeros(bins, np.int64)
    )
    histogram.add(values)
    return histogram


def uint8_error(values, low, high):
    step = (high - low) / 255
    zero_point = np.rint(-low / step)
    codes = np.clip(np.rint(values / step) + zero_point, 0, 255)
    return float(np.mean(((codes - zero_point) * step - values) ** 2))


def test_extremes_are_those_of_the_float_model():
    model, data = small_model(), images()
    names = int8.activations_to_calibrate(model)
    ranges = calibrate(model, names, data, CalibrationOptions(batch=7))
    graph = with_initializers(model.graph, {n: dense_array(t) for n, t in model.tensors.items()})
    graph.graph.output.extend(
        type(graph.graph.output[0])(name=name) for name in names if name not in ("images", "logits")
    )
    session = open_session(graph.SerializeToString())
    seen = dict(
        zip([o.name for o in session.get_outputs()], session.run(None, {"images": data}), strict=True)
    )
    seen["images"] = data
    assert list(ranges) == names
    for name, (low, high) in ranges.items():
        assert low == pytest.approx(min(seen[name].min(), 0), abs=1e-6)
        assert high == pytest.approx(max(seen[name].max(), 0), rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_ranges_hold_zero_and_start_there_after_a_rectifier(method):
    model = small_model()
    names = int8.activations_to_calibrate(model)
    ranges = calibrate(model, names, images(), CalibrationOptions(method=method))
    widest = calibrate(model, names, images())
    assert ranges["a1"][0] == 0.0
    for name, (low, high) in ranges.items():
        assert widest[name][0] <= low <= 0 <= high <= widest[name][1]
        assert high > 0


@pytest.mark.parametrize("method", METHODS)
def test_ranges_do_not_hang_on_the_batch(method):
    model = small_model()
    names = int8.activations_to_calibrate(model)
    small, large = (
        calibrate(model, names, images(), CalibrationOptions(method=method, batch=batch)) for batch in (3, 40)
    )
    for name in names:  # the kernels' order of additions does
        np.testing.assert_allclose(small[name], large[name], rtol=0.02, atol=1e-5)


def test_histogram_counts_every_value_once():
    values = images().ravel()
    values[:100] = 0
    histogram = histogram_of(values, bins=600)
    assert (histogram.counts.sum(), histogram.zeros) == (len(values) - 100, 100)
    expected, _ = np.histogram(values[values != 0], histogram.edges)
    assert np.abs(np.cumsum(histogram.counts) - np.cumsum(expected)).max() <= 2  # float32 at the edges


def test_a_histogram_that_grows_counts_like_one_whose_bounds_are_known():
    grown = GrowingHistogram(bins=512)
    values = np.random.default_rng(4).standard_normal((6, 500)).astype(np.float32)
    values[:, ::7] = 0
    calls = values * 2.0 ** np.arange(6, dtype=np.float32)[:, None]  # the bins are widened for every call
    for call in calls:
        grown.add(call)
    found = grown.histogram()
    expected, _ = np.histogram(calls[calls != 0], found.edges)
    assert_array_equal(found.counts, expected)

    for call in np.abs(calls):
        (one_sided := GrowingHistogram(bins=512)).add(call)
        assert one_sided.histogram().low == 0.0
        assert one_sided.histogram().high >= call.max()


def test_of_a_large_call_some_values_are_counted_from_everywhere():
    image = np.zeros((4, 16, 32), np.float32) + np.arange(1, 33, dtype=np.float32)  # a value for each column
    grown = GrowingHistogram(bins=64, most=256)
    grown.add(image)
    counts = grown.histogram().counts
    assert 128 < counts.sum() <= 256
    assert np.ptp(counts[counts > 0]) <= 1
    assert np.count_nonzero(counts) == 32


def test_percentile_cuts_that_share_of_each_side():
    values = np.random.default_rng(1).standard_normal(200_000)
    low, high = percentile_range(histogram_of(values), 99.0)
    assert np.mean(values > high) == pytest.approx(0.01, abs=0.002)
    assert np.mean(values < low) == pytest.approx(0.01, abs=0.002)
    assert percentile_range(histogram_of(np.abs(values)), 99.0)[0] == 0.0


def test_least_error_range_is_no_worse_than_any_other():
    values = np.random.default_rng(2).laplace(size=50_000).astype(np.float32)
    for sample in (values, np.maximum(values, 0)):
        low, high = least_error_range(histogram_of(sample))
        found = uint8_error(sample, low, high)
        for share in np.linspace(0.3, 1, 15):
            assert found <= 1.02 * uint8_error(sample, share * sample.min(), share * sample.max())
    assert high < values.max()


def test_entropy_keeps_an_even_distribution_and_cuts_an_outlier():
    even = np.linspace(0, 1, 50_000)
    assert entropy_range(histogram_of(even))[1] == pytest.approx(1, abs=0.01)
    normal = np.abs(np.random.default_rng(3).standard_normal(50_000))
    assert entropy_range(histogram_of(np.append(normal, 40)))[1] < 12
    low, high = entropy_range(histogram_of(np.append(even, -0.25)))
    assert (low, high) == (pytest.approx(-0.25), pytest.approx(1, abs=0.01))


def test_an_activation_that_is_always_zero_has_an_empty_range():
    model = relu_network()
    for method in METHODS:
        data = -np.abs(images(shape=(3, 4, 4)))
        assert calibrate(model, ["a0"], data, CalibrationOptions(method=method)) == {"a0": (0.0, 0.0)}


# Refusals


def test_no_activation_tells_which_method_is_best():
    with pytest.raises(InputError, match="method best compares outputs of integer models"):
        calibrate(small_model(), ["a1"], images(), CalibrationOptions(method=CalibrationMethod.BEST))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((0, 3, 4, 4), np.float32), r"empty: shape \(0, 3, 4, 4\)"),
        (np.zeros((5, 4, 4, 3), np.float32), r"shape \(5, 4, 4, 3\); .* expects \(N, 3, 4, 4\)"),
        (np.zeros((5, 48), np.float32), r"shape \(5, 48\); .* expects \(N, 3, 4, 4\)"),
        (np.zeros((5, 3, 4, 4)), r"type float64; expected float32"),
        (np.full((5, 3, 4, 4), np.nan, np.float32), "hold NaN or infinity"),
        (np.full((5, 3, 4, 4), np.inf, np.float32), "hold NaN or infinity"),
        (np.ones((5, 3, 4, 4), np.float32), r"all 1\.0"),
        (
            np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4)).astype(np.float32),
            r"run from \d+ to 2\d\d in channel 0; .* within -2 to 2; normalise .* uint8",
        ),
    ],
)
def test_data_that_the_network_was_not_made_for_are_refused(data, message):
    with pytest.raises(InputError, match=message):
        calibrate(relu_network({"modelpress.input": PIXELS}), ["a0"], data)


def test_pixels_at_both_ends_are_accepted():
    data = np.where(images(shape=(3, 4, 4)) > 0, 2.0, -2.0).astype(np.float32)
    assert calibrate(relu_network({"modelpress.input": PIXELS}), ["a0"], data) == {"a0": (0.0, 2.0)}


@pytest.mark.parametrize("text", ["no json", "[]", '{"mean": [1]}', '{"mean": [0], "std": [0]}'])
def test_damaged_metadata_are_refused(text):
    with pytest.raises(InputError, match=r"modelpress\.input are damaged"):
        calibrate(relu_network({"modelpress.input": text}), ["a0"], images(shape=(3, 4, 4)))


def test_an_unknown_activation_is_named():
    with pytest.raises(ModelError, match="nowhere: no node of the graph makes this activation"):
        calibrate(relu_network(), ["nowhere"], images(shape=(3, 4, 4)))


@pytest.mark.parametrize("options", [{"percentile": 50}, {"percentile": 101}, {"bins": 100}, {"batch": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(InputError, match="expected"):
        CalibrationOptions(**options)


def test_values_far_from_zero_keep_their_range_under_entropy():
    builder = GraphBuilder("positive", (4,))
    model = builder.finish(builder.relu(INPUT), n_outputs=4, metadata={})
    inputs = np.random.default_rng(0).uniform(0.2, 0.8, (200, 4)).astype(np.float32)
    ranges = calibrate(model, ["logits"], inputs, CalibrationOptions(method=CalibrationMethod.ENTROPY))
    assert ranges["logits"][1] > 0.7


def test_a_model_of_a_fixed_batch_is_calibrated_in_its_batches():
    builder = GraphBuilder("relu", (2,))
    model = builder.finish(builder.relu(INPUT), n_outputs=2, metadata={})
    model.graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    inputs = np.arange(20, dtype=np.float32).reshape(10, 2)
    assert calibrate(model, ["logits"], inputs) == {"logits": (0.0, 15.0)}
    with pytest.raises(InputError, match="takes 4 inputs at a time; 3 calibration inputs are too few"):
        calibrate(model, ["logits"], inputs[:3])


def test_a_fixed_batch_of_the_usual_size_leaves_the_rest_out_too():
    builder = GraphBuilder("relu", (2,))
    model = builder.finish(builder.relu(INPUT), n_outputs=2, metadata={})
    model.graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = CalibrationOptions().batch
    inputs = np.arange(80, dtype=np.float32).reshape(40, 2)
    assert calibrate(model, ["logits"], inputs) == {"logits": (0.0, 63.0)}
