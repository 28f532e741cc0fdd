"""Models that come with Q/DQ nodes: their codes are taken as they are, in every flavour."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from modelpress.export.graphs.initializers import with_initializers
from modelpress.export.onnx_flavours import prepare
from modelpress.export.onnx_flavours.given_grids import without_given_grids
from modelpress.export.post_training.calibration import CalibrationOptions
from modelpress.export.post_training.packing import WeightOptions, open_for_packing
from modelpress.export.press.reading import decode_artifact
from modelpress.export.press.writing import encode_artifact
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, dense_array
from modelpress.export.runtime import open_session
from modelpress.toolkit.model_files.onnx_writing import calibrated_ranges
from tests.helpers.foreign_onnx import NODE, arrays_of, foreign, saved

RNG = np.random.default_rng(2)
IMAGES = RNG.standard_normal((20, 3, 8, 8)).astype(np.float32)
CODES = RNG.integers(-127, 128, (16, 3, 3, 3)).astype(np.int8)
SCALES = RNG.uniform(0.001, 0.01, 16).astype(np.float32)
ZEROS = np.zeros(16, np.int8)
ROWS = RNG.integers(0, 256, (16, 10)).astype(np.uint8)


def qdq(name, scale, zero):
    return [
        NODE("QuantizeLinear", [name, scale, zero], [f"{name}.q"]),
        NODE("DequantizeLinear", [f"{name}.q", scale, zero], [f"{name}.dq"]),
    ]


def static_model():
    """As `quantize_static` writes: no Relu, for the range of its output does that work; int32 bias."""
    nodes = [
        NODE("DequantizeLinear", ["w", "w.s", "w.z"], ["w.dq"], axis=0),
        NODE("DequantizeLinear", ["b", "b.s", "b.z"], ["b.dq"], axis=0),
        NODE("DequantizeLinear", ["v", "v.s", "v.z"], ["v.dq"]),
        *qdq("x", "x.s", "x.z"),
        NODE("Conv", ["x.dq", "w.dq", "b.dq"], ["a"], pads=[1] * 4),
        *qdq("a", "a.s", "a.z"),
        NODE("GlobalAveragePool", ["a.dq"], ["g"]),
        *qdq("g", "a.s", "a.z"),
        NODE("Flatten", ["g.dq"], ["f"]),
        NODE("MatMul", ["f", "v.dq"], ["y"]),
    ]
    tensors = {
        "w": CODES,
        "w.s": SCALES,
        "w.z": ZEROS,
        "b": RNG.integers(-3000, 3000, 16).astype(np.int32),
        "b.s": SCALES * np.float32(0.03),
        "b.z": np.zeros(16, np.int32),
        "v": ROWS,
        "v.s": np.float32(0.02),
        "v.z": np.uint8(131),
        "x.s": np.float32(0.03),
        "x.z": np.uint8(128),
        "a.s": np.float32(0.02),
        "a.z": np.uint8(0),
    }
    return foreign(nodes, tensors, x=("N", 3, 8, 8), y=("N", 10))


def trained_model(zero=0):
    """As training with fake quantization is exported: float weights that the graph rounds."""
    nodes = [
        NODE("QuantizeLinear", ["w", "w.s", "w.z"], ["w.q"], axis=0),
        NODE("DequantizeLinear", ["w.q", "w.s", "w.z"], ["w.dq"], axis=0),
        NODE("Conv", ["x", "w.dq"], ["y"]),
    ]
    noise = RNG.uniform(-0.45, 0.45, CODES.shape).astype(np.float32)
    weight = (CODES + noise) * SCALES.reshape(-1, 1, 1, 1)
    tensors = {"w": weight.astype(np.float32), "w.s": SCALES, "w.z": ZEROS + np.int8(zero)}
    return foreign(nodes, tensors, x=("N", 3, 8, 8), y=("N", 16, 6, 6))


def packed(model, path, **options):
    source = open_for_packing(saved(model, path), WeightOptions(min_elements=100, **options))
    return decode_artifact(encode_artifact(source.model))


def outputs_of(model):
    whole = with_initializers(model.graph, {name: dense_array(t) for name, t in model.tensors.items()})
    return open_session(whole.SerializeToString()).run(None, {"x": IMAGES})[0]


@pytest.mark.parametrize("model", [static_model(), trained_model(), trained_model(100), trained_model(-100)])
def test_flavours_in_float_write_the_grid_back_and_compute_the_same(model, tmp_path):
    (expected,) = open_session(model.SerializeToString()).run(None, {"x": IMAGES})
    assert np.ptp(expected, axis=0).mean() > 0.5
    artifact = packed(model, tmp_path / "m.onnx")
    for flavour in ("float", "weight-only", "sparse"):
        assert_array_equal(outputs_of(prepare(artifact, flavour=flavour).model), expected)


@pytest.mark.parametrize("zero", [0, 100, -100])
def test_weights_that_the_graph_rounds_are_stored_as_the_codes_it_makes(zero, tmp_path):
    weight = packed(trained_model(zero), tmp_path / "m.onnx").tensors["w"]
    assert isinstance(weight, QuantizedTensor)
    lowest = 0 if weight.offset is None else (weight.offset / weight.scale).round().reshape(-1, 1, 1, 1)
    expected = np.clip(CODES.astype(int), -128 - zero, 127 - zero)
    assert_array_equal(weight.codes + lowest, expected)
    assert_array_equal(weight.scale, SCALES)


def test_weights_that_the_graph_rounds_stay_when_nothing_is_to_be_lost(tmp_path):
    model = trained_model()
    weight = packed(model, tmp_path / "m.onnx", lossless=True).tensors["w"]
    assert weight.tobytes() == model.graph.initializer[0].raw_data


@pytest.mark.parametrize("flavour", ["int8", "int8-sparse"])
def test_integer_arithmetic_runs_on_the_codes_and_scales_that_came_in(flavour, tmp_path):
    model = static_model()
    artifact = packed(model, tmp_path / "m.onnx")
    ranges = calibrated_ranges(artifact, IMAGES, CalibrationOptions())
    emission = prepare(artifact, flavour=flavour, ranges=ranges)
    assert not emission.notes or flavour == "int8-sparse"

    int8 = [t for t in emission.model.tensors.values() if isinstance(t, np.ndarray) and t.dtype == np.int8]
    assert any(t.shape == CODES.shape and np.array_equal(t, CODES) for t in int8)
    assert any(np.array_equal(t, SCALES) for t in emission.model.tensors.values())

    (expected,) = open_session(model.SerializeToString()).run(None, {"x": IMAGES})
    found = outputs_of(emission.model)
    assert expected.std() > 0.5
    assert_allclose(found, expected, atol=0.05 * expected.std())


def test_a_grid_that_stands_for_a_rectifier_becomes_a_clip():
    model = static_model()
    arrays = arrays_of(model)
    del model.graph.initializer[:]
    plain = without_given_grids(QuantizedModel(model, arrays))
    assert [node.op_type for node in plain.graph.graph.node] == [
        "Conv",
        "Clip",
        "GlobalAveragePool",
        "Flatten",
        "MatMul",
    ]
    low, high = (plain.tensors[name] for name in plain.graph.graph.node[1].input[1:])
    assert (low, high) == (0, np.float32(255) * np.float32(0.02))
    assert set(plain.tensors) >= {"w.dq", "b.dq", "v.dq"}
    assert "w" not in plain.tensors
    expected = (ROWS.astype(np.float64) - 131) * 0.02
    assert_allclose(plain.tensors["v.dq"].dequantize(), expected, atol=1e-6)  # up to the last bit
