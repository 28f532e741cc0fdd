"""Speech, sensor series, text: packed, decoded, written in every flavour that applies, and run."""

import numpy as np
import pytest

from modelpress.benchmarks.audits.loss import loss_against
from modelpress.export.onnx_flavours import emit
from modelpress.export.post_training.calibration import CalibrationOptions
from modelpress.export.post_training.packing import WeightOptions, open_for_packing
from modelpress.export.press.reading import decode_artifact
from modelpress.export.press.writing import encode_artifact
from modelpress.export.quantized import QuantizedTensor
from modelpress.export.runtime import open_session
from modelpress.toolkit.model_files.onnx_writing import calibrated_ranges
from tests.helpers.foreign_onnx import saved
from tests.helpers.own_networks import NETWORKS, inputs_of

KEPT = {
    "transformer": {"mask", "places"}
}  # of two axes and more: infinities, and what no operator has as a weight


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, tmp_path_factory):
    model = NETWORKS[request.param]()
    path = saved(model, tmp_path_factory.mktemp("network") / "model.onnx")
    return request.param, model, path


def packed(path, **options):
    data = encode_artifact(open_for_packing(path, WeightOptions(min_elements=256, **options)).model)
    return decode_artifact(data), len(data)


def run(model, inputs):
    return open_session(model.SerializeToString()).run(None, {"x": inputs})


def noise(found, expected):
    """Root mean square of the differences of each output, in standard deviations of it."""
    return [float(np.sqrt(np.mean((a - b) ** 2)) / b.std()) for a, b in zip(found, expected, strict=True)]


def test_every_weight_is_coded_and_outputs_stay(network):
    name, model, path = network
    expected, others = (run(model, inputs_of(model, seed=seed)) for seed in (1, 2))
    assert min(noise(others, expected)) > 0.5  # the outputs depend on the inputs

    artifact, size = packed(path)
    assert size < 0.32 * path.stat().st_size
    matrices = {
        tensor.name for tensor in model.graph.initializer if len(tensor.dims) > 1 and tensor.name[-1] != "b"
    }
    coded = {name for name, tensor in artifact.tensors.items() if isinstance(tensor, QuantizedTensor)}
    assert coded == matrices - KEPT.get(name, set())
    assert not loss_against(artifact, model).wrong

    for flavour in ("float", "weight-only", "sparse"):
        assert max(noise(run(emit(artifact, flavour=flavour), inputs_of(model)), expected)) < 0.03


def test_lossless_gives_back_every_tensor_and_output(network):
    _, model, path = network
    artifact, size = packed(path, lossless=True)
    loss = loss_against(artifact, model)
    assert (loss.n_equal, loss.lossy, loss.wrong) == (loss.n_tensors, (), ())
    assert size < path.stat().st_size
    for found, expected in zip(
        run(emit(artifact, flavour="float"), inputs_of(model)), run(model, inputs_of(model)), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["lstm with ctc head", "cnn and gru"])
def test_integer_flavours_of_networks_with_recurrent_layers_stay_near(name, tmp_path):
    model = NETWORKS[name]()
    artifact, _ = packed(saved(model, tmp_path / "m.onnx"))
    ranges = calibrated_ranges(artifact, inputs_of(model, n=32, seed=3), CalibrationOptions())
    inputs = inputs_of(model)
    for flavour in ("int8", "int8-sparse"):
        emitted = emit(artifact, flavour=flavour, ranges=ranges)
        assert any(node.op_type == "QuantizeLinear" for node in emitted.graph.node)
        assert max(noise(run(emitted, inputs), run(model, inputs))) < 0.08
