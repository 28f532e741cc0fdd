"""`modelpress pack` at a price per bit."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from modelpress.export.press.reading import read_artifact
from modelpress.export.quantized import QuantizedTensor
from modelpress.export.rate import pricing
from tests.helpers.command_line import one_line
from tests.helpers.foreign_onnx import NODE, foreign, saved

RNG = np.random.default_rng(7)


@pytest.fixture
def source(tmp_path):
    def normal(*shape):
        return RNG.standard_normal(shape).astype(np.float32)

    nodes = [
        NODE("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1]),
        NODE("BatchNormalization", ["a", "gamma", "beta", "mean", "variance"], ["b"]),
        NODE("Relu", ["b"], ["c"]),
        NODE("GlobalAveragePool", ["c"], ["d"]),
        NODE("Flatten", ["d"], ["e"]),
        NODE("Neg", ["e"], ["d2"]),
        NODE("Gemm", ["e", "w2", "b2"], ["f"]),
        NODE("MatMul", ["e", "w3"], ["g"]),
        NODE("MatMul", ["d2", "w3"], ["h"]),
        NODE("Sum", ["f", "g", "h"], ["y"]),
    ]
    tensors = {"w1": normal(16, 3, 3, 3), "gamma": normal(16), "beta": normal(16), "mean": normal(16)}
    tensors |= {"variance": np.ones(16, np.float32), "w2": normal(16, 12), "b2": normal(12)}
    tensors |= {"w3": normal(16, 12)}
    return saved(foreign(nodes, tensors, x=("N", 3, 8, 8), y=("N", 12)), tmp_path / "model.onnx")


@pytest.fixture
def inputs(tmp_path):
    path = tmp_path / "inputs.npy"
    np.save(path, RNG.standard_normal((40, 3, 8, 8)).astype(np.float32))
    return path


def test_a_size_is_kept_and_told_by_layer(call, source, inputs, tmp_path):
    press = tmp_path / "model.press"
    arguments = ["--calibration-data", inputs, "--target", "1.6kB", "--effort", "max"]
    code, out, err = call("pack", source, *arguments, "-o", press, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["size_bytes"] == press.stat().st_size <= 1600
    assert [layer["name"] for layer in report["layers"]] == ["w1", "w2"]
    assert report["kept"] == {"w3": "several nodes read it"}

    tensors = read_artifact(press).tensors
    assert isinstance(tensors["w3"], QuantizedTensor)
    assert tensors["w3"].bits == 8
    inspected = json.loads(call("inspect", press, "--json")[1])["tensors"]
    losses = {t["name"]: t["estimated_loss"] for t in inspected if t["bits"] is not None}
    assert losses == {layer["name"]: pytest.approx(layer["loss"], rel=0.1) for layer in report["layers"]} | {
        "w3": 0.0
    }
    assert call("verify", press)[0] == 0


def test_a_loss_is_kept(call, source, inputs, tmp_path):
    sizes = []
    for loss in ("0.02", "0.2"):
        press = tmp_path / "model.press"
        arguments = ["--calibration-data", inputs, "--loss", loss, "--overwrite"]
        code, out, err = call("pack", source, *arguments, "-o", press, "--json")
        assert code == 0, err
        sizes.append(json.loads(out)["size_bytes"])
    assert sizes[0] > sizes[1]


def test_a_price_is_taken_as_it_is(call, source, inputs, tmp_path):
    code, out, _ = call(
        "pack", source, "--calibration-data", inputs, "--rate", 1e-4, "-o", tmp_path / "m.press"
    )
    assert code == 0
    assert re.search(r"m\.press: [\d,]+ bytes, .*x smaller, price 0\.0001, error of the outputs", out)


class Stopped(BaseException):
    """As Ctrl-C, in the middle of a layer."""


@pytest.fixture
def stopped_after(monkeypatch):
    """Stops in the middle of a layer; `n` counts how many have been begun."""
    counter, rounded = SimpleNamespace(n=0, most=None), pricing.rounded

    def counted(*arguments):
        counter.n += 1
        if counter.n == counter.most:
            raise Stopped
        return rounded(*arguments)

    monkeypatch.setattr(pricing, "rounded", counted)
    return counter


@pytest.mark.parametrize("option", ["--target", "--frontier"])
def test_an_interrupted_search_goes_on_and_ends_as_one_that_was_not(  # noqa: PLR0917 - fixtures
    call, source, inputs, tmp_path, stopped_after, option
):
    after = 7

    def packed(folder):
        goal = {"--target": ["1.6kB", "-o", folder / "m.press"], "--frontier": [folder]}[option]
        return call("pack", source, "--calibration-data", inputs, option, *goal)

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert packed(whole)[0] == 0
    n_whole, stopped_after.n, stopped_after.most = stopped_after.n, 0, after
    with pytest.raises(Stopped):
        packed(stopped)

    stopped_after.n, stopped_after.most = 0, None
    code, _, err = packed(stopped)
    assert code == 0, err
    assert "going on with what an interrupted search has left" in err
    # the layer it was in is rounded again, which may be tried with two kinds of steps; and no other
    assert stopped_after.n - (n_whole - after) in {1, 2}
    files = {file.name: file.read_bytes() for file in whole.glob("*.press")}
    assert {file.name: file.read_bytes() for file in stopped.glob("*.press")} == files
    assert {file.name for file in stopped.iterdir()} == {file.name for file in whole.iterdir()}


def test_what_another_search_has_left_is_not_taken_up(call, source, inputs, tmp_path, stopped_after):
    stopped_after.most = 2
    arguments = ["--calibration-data", inputs, "--rate", "1e-4", "-o", tmp_path / "m.press"]
    with pytest.raises(Stopped):
        call("pack", source, *arguments)
    assert not (tmp_path / "m.press").exists()
    stopped_after.most = None
    code, _, err = call("pack", source, *arguments, "--calibration-images", "20")
    assert code == 0
    assert "going on" not in err
    assert not (tmp_path / ".m.press.search").exists()


def test_a_frontier_is_files_a_table_a_record_and_a_figure(call, source, inputs, tmp_path):
    folder = tmp_path / "curve"
    arguments = ["--calibration-data", inputs, "--frontier", folder]
    code, out, err = call("pack", source, *arguments, "--json")
    assert code == 0, err
    record = json.loads(out)
    assert json.loads((folder / "frontier.json").read_text()) == record
    points = record["points"]
    assert [(folder / point["output"]).stat().st_size for point in points] == [
        p["size_bytes"] for p in points
    ]
    assert points[0]["size_bytes"] > points[-1]["size_bytes"]
    assert points[0]["measured_error"] < points[-1]["measured_error"]
    assert (folder / "frontier.svg").read_text().startswith("<?xml")

    code, _, err = call("pack", source, *arguments)
    assert code == 1
    assert "--overwrite" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "90kB"], "pass --calibration-data PATH"),
        (["--target", "90kB", "--rate", "1"], "give one of --rate, --target and --loss"),
        (["--rate", "-1"], "expected a number above 0"),
        (["--loss", "half"], "--loss is 'half'; expected points as in 0.5pt"),
        (["--target", "little"], "--target is 'little'; expected a size"),
        (["--frontier", "curve", "--rate", "1"], "--frontier sets the prices itself"),
        (["--rate", "1e-4", "--bits", "4"], "--bits has no use at a price per bit"),
        (["--rate", "1e-4", "--lossless"], "--lossless has no use at a price per bit"),
    ],
)
def test_options_that_contradict_each_other_are_refused(call, source, tmp_path, arguments, message):
    code, _, err = call("pack", source, *arguments, "-o", tmp_path / "m.press")
    assert code == 2
    assert message in one_line(err)
    assert not (tmp_path / "m.press").exists()


def test_inputs_alone_are_refused(call, source, inputs, tmp_path):
    code, _, err = call("pack", source, "--calibration-data", inputs, "-o", tmp_path / "m.press")
    assert code == 2
    assert "--calibration-data is for --rate, --target, --loss and --frontier" in one_line(err)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (RNG.random((4, 3, 9, 9)), "calibration data have shape"),
        (np.ones((4, 3, 8, 8)), "nothing can be learnt"),
    ],
)
def test_inputs_that_teach_nothing_are_refused(call, source, tmp_path, data, message):
    np.save(tmp_path / "bad.npy", data.astype(np.float32))
    arguments = ["--calibration-data", tmp_path / "bad.npy", "--rate", "1e-4", "-o", tmp_path / "m.press"]
    code, _, err = call("pack", source, *arguments)
    assert code == 1
    assert message in err


def test_a_size_out_of_reach_is_refused_with_the_nearest(call, source, inputs, tmp_path):
    arguments = ["--calibration-data", inputs, "--target", "100", "-o", tmp_path / "m.press"]
    code, _, err = call("pack", source, *arguments)
    assert code == 1
    assert re.search(r"no price reaches 100 bytes: the smallest file has [\d,]+ bytes", err)
