"""Studies of removed channels, small."""

import json

import pytest

from modelpress.benchmarks.measures import layer_latency
from modelpress.benchmarks.measures.layer_latency import LayerTable
from modelpress.export.errors import CommandLineError
from modelpress.toolkit.commands.study.channels.budgets import study_budgets
from modelpress.toolkit.commands.study.channels.channels import study_channels
from modelpress.toolkit.compression.network_file import new_network, save_network
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.recipe import ModelOptions
from modelpress.toolkit.studies.channels import budgets
from modelpress.toolkit.studies.channels.equality import measure_row


@pytest.mark.parametrize("name", ["vision-transformer"])
def test_a_row_says_what_is_left_and_how_far_apart_outputs_are(name):
    row = measure_row(name)
    assert row.parameters[1] < 0.65 * row.parameters[0]
    assert row.macs[1] < 0.8 * row.macs[0]
    assert row.varies > 0.1
    assert row.torch_difference <= 1e-5
    assert row.onnx_difference <= 1e-5


def test_a_network_that_is_not_in_the_study_is_refused():
    with pytest.raises(CommandLineError, match=r"no network 'resnet19'; choose among resnet20-a"):
        study_channels("resnet19", None, overwrite=False)


def test_a_row_of_budgets_says_what_is_left_and_how_fast_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(layer_latency, "_SECONDS", 0.0)
    monkeypatch.setattr(layer_latency, "_FEWEST", 1)
    monkeypatch.setattr(budgets, "_SECONDS", 0.0)
    monkeypatch.setattr(LayerTable, "ratio_of", lambda self, models, names, operators: 0.5)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "dense.safetensors"
    save_network(path, NetworkState(new_network(ModelOptions(), seed=0), ModelOptions()))
    outcome = study_budgets(path, {}, ["0.7x"], [16], tmp_path / "budgets.json", overwrite=False)

    full, small = json.loads((tmp_path / "budgets.json").read_text())["rows"]
    assert full["float_latency"] == full["int8_latency"] == {"1": 1.0, "64": 1.0}
    assert small["macs"] < full["macs"]
    assert small["bytes"][1] < full["bytes"][1] < full["bytes"][0]
    assert {width % 16 for width in small["widths"][:-1]} == {0}
    assert all(ratio > 0 for ratio in (*small["float_latency"].values(), *small["int8_latency"].values()))
    outcome.show()


def test_a_budget_that_is_none_is_refused(tmp_path):
    with pytest.raises(CommandLineError, match="expected a budget as in 0.75x"):
        study_budgets(tmp_path / "dense.pt", {}, ["fast"], [8], None, overwrite=False)
