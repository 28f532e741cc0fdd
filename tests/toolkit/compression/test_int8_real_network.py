"""Integer arithmetic on the real ResNet-20 and CIFAR-10, beside ONNX Runtime's own quantization."""

import numpy as np
import pytest

from modelpress.benchmarks.peers import ort_static
from modelpress.export.choices import CalibrationMethod
from modelpress.export.graphs.initializers import with_initializers
from modelpress.export.graphs.parts import metadata
from modelpress.export.onnx_flavours import int8
from modelpress.export.post_training.calibration import CalibrationOptions, calibrate
from modelpress.export.post_training.rounding import PostTraining, quantize_weight
from modelpress.export.quantized import QuantizedModel, dense_array
from modelpress.export.runtime import open_session, run_batched
from modelpress.toolkit.compression.freeze import freeze_state
from modelpress.toolkit.compression.network_file import load_network
from modelpress.toolkit.data.calibration_data import load_calibration
from modelpress.toolkit.data.cifar10 import load_cifar10
from modelpress.toolkit.data.data_set import normalised
from modelpress.toolkit.recipe import ModelOptions
from tests.helpers.int8_chain import optimised_operators, with_int8_weights

N_TEST, N_CALIBRATION = 400, 128


@pytest.fixture(scope="module")
def images(cifar10_folder):
    everything = load_cifar10(str(cifar10_folder), test_only=True)
    return normalised(everything.test.images[:N_TEST], everything.mean, everything.std)


@pytest.fixture(scope="module")
def model(real_checkpoint):
    """In four bits, a grid for each output channel, batch norm folded."""
    frozen = freeze_state(load_network(real_checkpoint, ModelOptions()))
    quantized = {
        name: quantize_weight(tensor, PostTraining(bits=4), channel_axis=0) if tensor.ndim == 4 else tensor
        for name, tensor in frozen.tensors.items()
    }
    return QuantizedModel(frozen.graph, quantized)


@pytest.fixture(scope="module")
def inputs(cifar10_folder, model):
    stated = {**metadata(model.graph), "modelpress.dataset": "cifar10"}
    return load_calibration(cifar10_folder, n_images=N_CALIBRATION, metadata=stated)


def float_bytes(model):
    arrays = {name: dense_array(tensor) for name, tensor in model.tensors.items()}
    return with_initializers(model.graph, arrays).SerializeToString()


def logits_of(data, images):
    return run_batched(open_session(data, threads=1), images)


def test_every_layer_computes_in_integers_in_less_than_293_kilobytes(model, inputs):
    names = int8.activations_to_calibrate(model)
    planned = int8.plan(model, calibrate(model, names, inputs[:32]))
    assert planned.notes == []
    emitted = with_int8_weights(planned)
    assert len(emitted.SerializeToString()) < 293_000
    operators = optimised_operators(emitted)
    del operators["Transpose"]  # of integers, to the layout of the kernels
    assert operators == {
        "QuantizeLinear": 1,
        "QLinearConv": 21,
        "QLinearAdd": 9,
        "QLinearGlobalAveragePool": 1,
        "Flatten": 1,
        "QGemm": 1,
    }


def test_logits_are_nearer_to_float_than_those_of_the_runtimes_own_quantization(
    tmp_path, model, inputs, images, capsys
):
    expected = logits_of(float_bytes(model), images)
    (tmp_path / "float.onnx").write_bytes(float_bytes(model))
    np.save(tmp_path / "inputs.npy", inputs)
    ort_static.main(
        [
            str(tmp_path / "float.onnx"),
            "--calibration-data",
            str(tmp_path / "inputs.npy"),
            "-o",
            str(tmp_path / "peer.onnx"),
        ]
    )
    assert "bytes" in capsys.readouterr().out
    peer = (tmp_path / "peer.onnx").read_bytes()
    ours = with_int8_weights(
        int8.plan(model, calibrate(model, int8.activations_to_calibrate(model), inputs))
    ).SerializeToString()
    assert len(ours) < len(peer)
    difference, of_peer = (np.abs(logits_of(data, images) - expected) for data in (ours, peer))
    assert difference.max() < of_peer.max()
    assert np.mean(difference**2) < np.mean(of_peer**2)


@pytest.mark.parametrize("method", [rule for rule in CalibrationMethod if rule is not CalibrationMethod.BEST])
def test_labels_hardly_change(model, inputs, images, method):
    expected = logits_of(float_bytes(model), images)
    options = CalibrationOptions(method=method)
    ranges = calibrate(model, int8.activations_to_calibrate(model), inputs[:48], options)
    found = logits_of(with_int8_weights(int8.plan(model, ranges)).SerializeToString(), images)
    assert np.mean(found.argmax(axis=1) == expected.argmax(axis=1)) > 0.98
