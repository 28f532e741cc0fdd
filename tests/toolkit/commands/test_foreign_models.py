"""Models that never end, on the command line: every command refuses them, or ends at ``--timeout``."""

import sys

import numpy as np
import pytest
from onnx import TensorProto, helper

from modelpress.export.isolation import foreign
from modelpress.toolkit.commands.bench import numbers as bench_numbers
from tests.helpers.command_line import modelpress, one_line
from tests.helpers.foreign_onnx import INFO, NODE, saved
from tests.helpers.foreign_onnx import foreign as foreign_model


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """A loop of 2**62 rounds before a matrix product; also packed."""
    folder = tmp_path_factory.mktemp("endless")
    body = helper.make_graph(
        [NODE("Identity", ["c"], ["d"]), NODE("Relu", ["s"], ["t"])],
        "body",
        [INFO("k", TensorProto.INT64, []), INFO("c", TensorProto.BOOL, []), INFO("s", 1, None)],
        [INFO("d", TensorProto.BOOL, []), INFO("t", 1, None)],
    )
    weights = {"M": np.int64(2**62), "go": np.bool_(True), "w": np.ones((4, 4), np.float32)}
    nodes = [NODE("Loop", ["M", "go", "x"], ["h"], body=body), NODE("MatMul", ["h", "w"], ["y"])]
    saved(foreign_model(nodes, weights), folder / "m.onnx")
    np.save(folder / "x.npy", np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32))
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "m.press"],
        ["bench", "m.onnx", "--batch", "1", "--threads", "1", "--rounds", "1"],
        ["bench", "--profile", "mlperf-tiny", "m.onnx"],
        ["bundle", "m.press", "-o", "handed"],
        ["onnx", "m.press", "--flavour", "int8", "--calibration-data", "x.npy", "-o", "int8.onnx"],
    ],
    ids=lambda arguments: "-".join(arguments[:2]),
)
def test_a_model_that_never_ends_is_stopped_and_leaves_nothing(monkeypatch, capfd, endless, arguments):
    monkeypatch.chdir(endless)
    if not (endless / "m.press").exists():
        assert modelpress(monkeypatch, "pack", "m.onnx", "-o", "m.press", "--min-elements", "1") == 0
    there = sorted(endless.rglob("*"))
    capfd.readouterr()

    assert modelpress(monkeypatch, *arguments, "-q", "--timeout", "1") == 1
    assert "took longer than 1 s and was stopped" in one_line(capfd.readouterr().err)
    assert sorted(endless.rglob("*")) == there
    assert foreign.foreign_process() is None


def test_an_option_given_twice_is_refused_where_the_first_would_be_forgotten(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert modelpress(monkeypatch, "pack", "m.onnx", "--bits", "4", "--bits", "8") == 2
    assert "--bits is given twice" in one_line(capfd.readouterr().err)


@pytest.mark.parametrize(
    "command", [["scaling", "--weights"], ["a.onnx", "--batch"], ["a.onnx", "--threads"]]
)
def test_lists_of_numbers_given_twice_are_one_list(monkeypatch, command):
    seen = {}

    def numbers(option, text):
        seen[option] = text.split()
        return sys.exit(9) if option == command[-1] else (1,)

    monkeypatch.setattr(bench_numbers, "numbers", numbers)
    assert modelpress(monkeypatch, "bench", *command, "4000", command[-1], "5000") == 9
    assert seen[command[-1]] == ["4000", "5000"]
