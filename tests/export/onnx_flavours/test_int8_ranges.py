"""The rule whose integer model is nearer to the float model gives the ranges."""

import numpy as np
import pytest

from modelpress.export.choices import CalibrationMethod
from modelpress.export.onnx_flavours import emit, int8_ranges
from modelpress.export.onnx_flavours.int8 import activations_to_calibrate
from modelpress.export.onnx_flavours.int8_noise import measure_noise
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
