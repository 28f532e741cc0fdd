import numpy as np
import onnx
import pytest

from modelpress.export.errors import InputError, ModelError
from modelpress.export.graphs.initializers import with_initializers
from modelpress.export.onnx_flavours import emit, prepare
from modelpress.export.onnx_flavours.int8 import activations_to_calibrate
from modelpress.export.onnx_flavours.int8_noise import exclude_until, measure_noise
from modelpress.export.post_training.calibration import CalibrationOptions, calibrate
from modelpress.export.press.writing import write_artifact
from modelpress.export.runtime import open_session, run_batched
from tests.helpers.command_line import modelpress
from tests.helpers.graph_builder import INPUT, GraphBuilder

IMAGES = np.random.default_rng(1).standard_normal((24, 3, 8, 8)).astype(np.float32)


def network(*, spread=1e4):
    """Three convolutions, of which the middle one's channels differ so much that uint8 cannot hold them."""
    rng = np.random.default_rng(0)
    builder = GraphBuilder("noisy", (3, 8, 8))
    x = INPUT
    for name, c_in in (("first", 3), ("wild", 8), ("last", 8)):
        weight = (rng.standard_normal((8, c_in, 3, 3)) / np.sqrt(9 * c_in)).astype(np.float32)
        if name == "wild":
            weight[0] *= spread
        if name == "last":
            weight[:, 0] /= spread
        x = builder.relu(builder.conv(name, x, weight, np.zeros(8, np.float32), stride=1, padding=1))
    x = builder.flatten(builder.global_average_pool(x))
    x = builder.gemm("fc", x, rng.standard_normal((4, 8)).astype(np.float32), np.zeros(4, np.float32))
    return builder.finish(x, n_outputs=4, metadata={})


def ranges_of(model, exclude=()):
    return calibrate(model, activations_to_calibrate(model, exclude), IMAGES)


def error(model, integer):
    expected, found = (
        run_batched(open_session(m.SerializeToString()), IMAGES)
        for m in (emit(model, flavour="float"), integer)
    )
    return np.sqrt(np.square(found - expected).sum() / np.square(expected).sum())


def emitted(model, exclude):
    made = prepare(model, flavour="int8", ranges=ranges_of(model, exclude), exclude=exclude).model
    return with_initializers(made.graph, dict(made.tensors))


def test_the_noisiest_layer_comes_first_and_the_loss_is_that_of_the_file():
    model = network()
    noise = measure_noise(model, ranges_of(model), IMAGES)
    nodes = {node.output[0]: node for node in model.graph.graph.node}
    assert (
        "last.weight" in nodes[noise.layers[0].name].input
    )  # it reads the channels that uint8 cannot tell apart
    assert [layer.own for layer in noise.layers] == sorted(
        (layer.own for layer in noise.layers), reverse=True
    )
    assert noise.loss == pytest.approx(error(model, emitted(model, ())), rel=1e-3)
    assert noise.loss > 0.05


def test_layers_are_left_in_float_until_the_loss_is_met():
    model = network()
    ranges = ranges_of(model)
    before = measure_noise(model, ranges, IMAGES).loss
    found, complete = exclude_until(model, ranges, IMAGES, CalibrationOptions(), loss=0.05)
    assert found.loss <= 0.05 < before
    producers = {node.output[0]: node for node in model.graph.graph.node}
    weights = {producers[name].input[1] for name in found.excluded}
    assert weights == {"wild.weight", "last.weight"}  # the classifier was tried too, and did not help
    assert complete.keys() >= set(activations_to_calibrate(model, found.excluded))
    assert error(model, emitted(model, found.excluded)) <= 0.05

    untouched, _ = exclude_until(model, ranges, IMAGES, CalibrationOptions(), loss=2 * before)
    assert untouched.excluded == []
    with pytest.raises(ModelError, match=r"a loss of 1e-09 cannot be met"):
        exclude_until(model, ranges, IMAGES, CalibrationOptions(), loss=1e-9)


def test_operators_and_nodes_are_excluded_by_name():
    model = network()
    notes = prepare(model, flavour="int8", ranges=ranges_of(model, ["Gemm"]), exclude=["Gemm"]).notes
    assert any("Gemm" in note and "it is excluded" in note for note in notes)
    wild = next(node for node in model.graph.graph.node if any("wild" in name for name in node.input))
    made = emitted(model, [wild.output[0]])
    assert made.graph.ByteSize() > emitted(model, ()).graph.ByteSize() + 3 * 8 * 8 * 9 - 200
    with pytest.raises(InputError, match=r"no node of the graph is called 'Cnov'.*Conv, .*Gemm"):
        activations_to_calibrate(model, ["Cnov"])


def test_the_command_shows_the_table_and_excludes(tmp_path, monkeypatch, capsys):
    artifact, data = tmp_path / "m.press", tmp_path / "inputs.npy"
    write_artifact(artifact, network())
    np.save(data, IMAGES)
    options = ["--flavour", "int8", "--calibration-data", data, "--auto-exclude", "0.05"]
    target = tmp_path / "m.onnx"
    assert modelpress(monkeypatch, "onnx", artifact, *options, "-o", target) == 0
    shown = capsys.readouterr().out
    assert "signal to noise" in shown
    assert "in float: " in shown
    assert error(network(), onnx.load(target)) <= 0.05
    assert modelpress(monkeypatch, "onnx", artifact, "--noise", "-o", tmp_path / "x.onnx") == 2
