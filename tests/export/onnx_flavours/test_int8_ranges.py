"""The rule whose integer model is nearer to the float model gives the ranges."""

from collections import Counter

import numpy as np
import pytest

from modelpress.export.choices import CalibrationMethod
from modelpress.export.onnx_flavours import emit, int8, int8_noise, int8_ranges
from modelpress.export.onnx_flavours.int8 import activations_to_calibrate
from modelpress.export.onnx_flavours.int8_noise import FloatCalls, measure_noise
from modelpress.export.onnx_flavours.int8_ranges import choose_ranges
from modelpress.export.post_training import calibration
from modelpress.export.post_training.calibration import CalibrationOptions, calibrate
from modelpress.export.runtime import open_session, run_batched
from tests.helpers.graph_builder import INPUT, GraphBuilder

BEST = CalibrationOptions(method=CalibrationMethod.BEST)
MIN_MAX, MSE = CalibrationMethod.MIN_MAX, CalibrationMethod.MSE


def network():
    rng = np.random.default_rng(0)
    builder = GraphBuilder("two", (3, 8, 8))
    x = INPUT
    for name, c_in in (("a", 3), ("b", 8)):
        weight = (rng.standard_normal((8, c_in, 3, 3)) / np.sqrt(9 * c_in)).astype(np.float32)
        x = builder.relu(builder.conv(name, x, weight, np.zeros(8, np.float32), stride=1, padding=1))
    x = builder.flatten(builder.global_average_pool(x))
    x = builder.gemm("fc", x, rng.standard_normal((4, 8)).astype(np.float32), np.zeros(4, np.float32))
    return builder.finish(x, n_outputs=4, metadata={})


def images(*, outlier=1):
    """An outlier far beyond the others has nearly all steps from minimum to maximum to itself."""
    made = np.random.default_rng(1).uniform(-1, 1, (24, 3, 8, 8)).astype(np.float32)
    made[0, 0, 0, 0] = outlier
    return made


def loss(model, ranges, inputs):
    exact, found = (
        run_batched(open_session(made.SerializeToString()), inputs)
        for made in (emit(model, flavour="float"), emit(model, flavour="int8", ranges=ranges))
    )
    return np.sqrt(np.square(found - exact).sum() / np.square(exact).sum())


@pytest.mark.parametrize("method", [MIN_MAX, MSE])
def test_the_rule_of_smaller_output_error_is_taken_and_both_errors_are_told(method, monkeypatch):
    model, inputs = network(), images(outlier=300)
    if method is MIN_MAX:  # least error is no longer what it was
        monkeypatch.setattr(calibration, "least_error_range", lambda seen: (seen.low / 99, seen.high / 99))
    chosen = choose_ranges(model, inputs, BEST)
    assert chosen.method is method
    names = activations_to_calibrate(model)
    for rule in (MIN_MAX, MSE):
        ranges = calibrate(model, names, inputs, CalibrationOptions(method=rule))
        assert chosen.losses[rule] == pytest.approx(loss(model, ranges, inputs), rel=1e-3)
        assert chosen.losses[rule] == pytest.approx(measure_noise(model, ranges, inputs).loss)
        assert (chosen.ranges == ranges) == (rule is method)


def test_a_rule_that_is_asked_for_is_not_compared(monkeypatch):
    monkeypatch.setattr(int8_ranges, "output_losses", None)
    chosen = choose_ranges(network(), images(), CalibrationOptions(method=MSE))
    assert (chosen.method, chosen.losses) == (MSE, {})


def test_to_compare_rules_the_float_model_is_loaded_once_and_weights_are_searched_once(monkeypatch):
    calls = Counter()

    def counted(module, name):
        real = getattr(module, name)

        def call(*args, **kwargs):
            calls[module.__name__.rpartition(".")[2], name] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    counted(calibration, "open_decoded")
    counted(int8_noise, "open_decoded")
    counted(int8, "searched_weights")
    choose_ranges(network(), images(), BEST)
    assert calls == {
        ("calibration", "open_decoded"): 1,
        ("int8_noise", "open_decoded"): 2,  # a candidate each
        ("int8", "searched_weights"): 1,
    }


@pytest.mark.parametrize(
    ("inputs", "fed", "n_bytes", "kept"),
    [
        (np.zeros((90, 2)), 32, 4, 2),
        ([{}] * 90, 32, 4, 16),
        (np.zeros((90, 2)), 1, 50 << 20, 3),  # the last may exceed what is left
    ],
)
def test_few_inputs_and_no_more_outputs_than_fit_are_kept(inputs, fed, n_bytes, kept):
    calls = FloatCalls.of(network(), inputs)
    (name,) = calls.names
    for _ in range(20):
        calls.keep({"x": np.zeros((fed, 2))}, {name: np.zeros(n_bytes, np.uint8), "hidden": np.zeros(9)})
    assert len(calls.kept) == kept
    assert all(outputs.keys() == {name} for _, outputs in calls.kept)
