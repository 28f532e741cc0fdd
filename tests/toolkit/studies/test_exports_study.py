"""Exported networks, packed and beside `quantize_static`: the whole study on a network of a second."""

import json

import pytest
import torch
from torch import nn

from modelpress.export.onnx_flavours import FLAVOURS
from modelpress.toolkit.studies.exports import run_row
from modelpress.toolkit.studies.networks.shaking import settled, shaken
from tests.helpers.command_line import modelpress, one_line


def small(name, others):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 50),
    )
    return settled(shaken(network), torch.from_numpy(others).split(8)).eval()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(run_row, "SIZE", 24)
    monkeypatch.setattr(run_row, "_network", small)


def test_both_exporters_are_packed_measured_and_kept(quick, monkeypatch, capsys, tmp_path):
    arguments = ("study", "exports", "--rows", "squeezenet*", "-o", tmp_path, "--json")
    assert modelpress(monkeypatch, *arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((tmp_path / "exports.json").read_text())
    rows = document["rows"]
    assert [row["row"] for row in rows] == ["squeezenet1_1-torchscript", "squeezenet1_1-dynamo"]
    assert len(document["not_run"]) == 18

    for row in rows:
        assert row["spread"] > 0.05
        in_four = {f"{flavour} 4" for flavour in ("float", "weight-only", "sparse", "int8-sparse")}
        assert set(row["flavours"]) == {*FLAVOURS, *in_four, "float asymmetric", "int8 lossless"}
        assert row["press"]["4"]["size_bytes"] < row["press"]["8"]["size_bytes"] < row["lossless_bytes"]
        assert row["lossless"] in ("byte-identical", "tensor-identical")
        for flavour in ("float", "weight-only", "sparse"):
            assert row["flavours"][flavour]["cosine"] > 0.999
        for flavour in ("int8", "int8 lossless"):
            assert row["flavours"][flavour]["cosine"] > 0.99
            assert row["flavours"][flavour]["rule"] in ("min-max", "mse")
        assert row["flavours"]["int8"]["size_bytes"] < row["quantize_static"]["size_bytes"]

    assert "squeezenet1_1-dynamo" in (tmp_path / "exports.md").read_text()
    monkeypatch.setattr(run_row, "_network", None)  # what is measured is not run again
    assert modelpress(monkeypatch, *arguments) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == rows


def test_outputs_that_ignore_the_input_prove_nothing(quick, monkeypatch, capfd, tmp_path):
    def deaf(name, others):
        network = small(name, others)
        nn.init.zeros_(network[-1].weight)
        return network

    monkeypatch.setattr(run_row, "_network", deaf)
    assert (
        modelpress(monkeypatch, "study", "exports", "--rows", "resnet18-torchscript", "-o", tmp_path, "-q")
        == 1
    )
    assert "outputs move by 0.000 of their range" in one_line(capfd.readouterr().err)
