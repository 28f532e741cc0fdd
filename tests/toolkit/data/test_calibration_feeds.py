import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelpress.export.errors import InputError
from modelpress.export.graphs.conventions import IR_VERSION
from modelpress.export.onnx_flavours import prepare
from modelpress.export.onnx_flavours.int8 import activations_to_calibrate
from modelpress.export.post_training.calibration import calibrate
from modelpress.export.post_training.rounding import PostTraining, quantize_weight
from modelpress.export.press.writing import write_artifact
from modelpress.export.quantized import QuantizedModel
from modelpress.export.runtime import open_decoded, run_feed
from modelpress.toolkit.data.calibration_feeds import load_feeds
from tests.helpers.command_line import modelpress


def token_model():
    """Token ids and a mask, both of any length, through an embedding and two matrix products."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("MatMul", ["e", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["s"]),
        helper.make_node("Mul", ["s", "mask"], ["scores"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "tokens",
        [info("ids", TensorProto.INT64, ["n", "t"]), info("mask", TensorProto.FLOAT, ["n", "t", 1])],
        [info("scores", TensorProto.FLOAT, ["n", "t", 6])],
    )
    model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", 13)])
    weights = {
        name: quantize_weight(
            rng.standard_normal(shape).astype(np.float32), PostTraining(bits=8), channel_axis=axis
        )
        for name, shape, axis in (("table", (50, 16), 0), ("w1", (16, 32), 1), ("w2", (32, 6), 1))
    }
    return QuantizedModel(model, weights)


def feed(length, n=4):
    rng = np.random.default_rng(length)
    return {"ids": rng.integers(0, 50, (n, length)), "mask": np.ones((n, length, 1), np.float32)}


def error(model, integer):
    (expected, found) = (run_feed(open_decoded(m), feed(7))["scores"] for m in (model, integer))
    assert np.ptp(expected, axis=(0, 1)).min() > 1  # the outputs depend on the tokens
    return np.sqrt(np.square(found - expected).sum() / np.square(expected).sum())


def test_calls_of_several_lengths_calibrate_a_model_of_integers_and_a_mask(tmp_path):
    for length in (3, 9, 5):
        np.savez(tmp_path / f"{length}.npz", **feed(length))
    model = token_model()
    feeds = load_feeds(tmp_path, model, n_calls=10)
    assert [call["ids"].shape for call in feeds] == [(4, 3), (4, 5), (4, 9)]
    ranges = calibrate(model, activations_to_calibrate(model), feeds)
    integer = prepare(model, flavour="int8", ranges=ranges).model
    assert sum(t.dtype == np.int8 and t.ndim == 2 for t in integer.tensors.values()) == 2
    assert error(model, integer) < 0.02


def test_a_file_of_all_inputs_is_cut_into_calls(tmp_path):
    np.savez(tmp_path / "all.npz", **feed(6, n=70))
    feeds = load_feeds(tmp_path / "all.npz", token_model(), n_calls=50)
    assert [len(call["ids"]) for call in feeds] == [32, 18]
    assert [len(call["mask"]) for call in feeds] == [32, 18]


def test_images_are_left_to_those_who_know_them(tmp_path):
    from tests.helpers.models import small_model

    np.save(tmp_path / "x.npy", np.zeros((3, 2, 6, 6), np.float32))
    assert load_feeds(tmp_path / "x.npy", small_model(), n_calls=5) is None
    assert load_feeds(None, token_model(), n_calls=5) is None
    (tmp_path / "data").mkdir()
    assert load_feeds(tmp_path / "data", token_model(), n_calls=5) is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"ids": np.zeros((2, 3), np.int64)},
            r"holds ids; expected an array for each input of the model: ids, mask",
        ),
        (
            {**feed(3), "ids": np.zeros((4, 3), np.int32)},
            r"ids: calibration data have type int32; expected int64",
        ),
        ({**feed(3), "mask": np.full((4, 3, 1), np.nan, np.float32)}, r"mask: calibration data hold NaN"),
        (
            {**feed(3), "mask": np.ones((4, 2, 1), np.float32)},
            r"ids int64 \(4, 3\), mask float32 \(4, 2, 1\)",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(arrays, message, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    model = token_model()
    with pytest.raises(InputError, match=message):
        calibrate(model, activations_to_calibrate(model), load_feeds(tmp_path / "x.npz", model, n_calls=9))


def test_the_command_takes_them(tmp_path, monkeypatch, capsys):
    write_artifact(tmp_path / "tokens.press", token_model())
    np.savez(tmp_path / "all.npz", **feed(6))
    target = tmp_path / "int8.onnx"
    options = [
        "--flavour",
        "int8",
        "--calibration-data",
        tmp_path / "all.npz",
        "--noise",
        "--json",
        "--quiet",
    ]
    assert modelpress(monkeypatch, "onnx", tmp_path / "tokens.press", *options, "-o", target) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {layer["operator"] for layer in facts["noise"]["layers"]} == {"MatMul"}
    assert facts["noise"]["loss"] < 0.02
    onnx.checker.check_model(str(target), full_check=True)
