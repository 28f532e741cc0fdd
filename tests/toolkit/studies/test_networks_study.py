"""Ten networks of other people: the smallest by the command itself, the checks on networks that break them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from modelpress.export.errors import CommandLineError, ModelError
from modelpress.export.onnx_flavours import FLAVOURS, emit
from modelpress.export.press.reading import read_artifact
from modelpress.export.quantized import QuantizedTensor
from modelpress.export.runtime import open_session
from modelpress.toolkit.commands.study.networks import networks_markdown
from modelpress.toolkit.compression.own_loop import compress
from modelpress.toolkit.studies.networks import hand_written
from modelpress.toolkit.studies.networks.rows import ROWS, NetworkRow, choose_networks
from modelpress.toolkit.studies.networks.run_row import (
    LARGEST_DIFFERENCE,
    LEAST_SPREAD,
    RECIPE,
    NetworkRecord,
    _check_flavours,
    _checked_codes,
    run_network,
)
from modelpress.toolkit.studies.networks.shaking import settled, shaken, spread
from tests.helpers.command_line import modelpress, one_line
from tests.helpers.paths import ROOT


def words(n, generator):
    return torch.randint(0, 60, (n, 12), generator=generator)


def small_text():
    return hand_written.TextTransformer(60, 32, depth=1, wider=2, length=12)


TEXT = NetworkRow("text", "by hand", small_text, words)


def test_small_networks_by_the_command(tmp_path, monkeypatch, capsys):
    arguments = ("study", "networks", "--rows", "ds-cnn,lstm", "-o", tmp_path, "--json")
    assert modelpress(monkeypatch, *arguments) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((tmp_path / "networks.json").read_text())
    assert [row["name"] for row in record["rows"]] == ["ds-cnn", "lstm"]
    assert set(record["not_run"]) == set(ROWS) - {"ds-cnn", "lstm"}

    for row in record["rows"]:
        # the artifact alone tells the same
        press = tmp_path / "rows" / row["name"] / "model.press"
        model = read_artifact(press)
        coded = model.quantized()
        assert row["press_bytes"] == press.stat().st_size < row["flavours"]["float"]["size_bytes"] / 7
        assert row["coded_layers"] == row["weight_layers"] > 4
        assert row["coded_weights"] == sum(tensor.codes.size for tensor in coded.values())
        assert {tensor.bits for tensor in coded.values()} == {4}
        assert row["left"] == []
        assert row["zeros"] >= 0.5
        assert row["spread"] >= LEAST_SPREAD
        assert 0 < row["difference"] <= LARGEST_DIFFERENCE

        # and so does what the session gives for other inputs
        session = open_session(emit(model, flavour="float").SerializeToString())
        inputs = ROWS[row["name"]].inputs(3, seed=9).numpy()
        (outputs,) = session.run(None, {session.get_inputs()[0].name: inputs})
        assert outputs.shape[0] == 3
        assert spread(outputs) >= LEAST_SPREAD / 2

        flavours = row["flavours"]
        assert set(flavours) == set(FLAVOURS)
        assert not any(flavour["refused"] for flavour in flavours.values())
        assert flavours["int8"]["cosine"] == flavours["int8-sparse"]["cosine"] > 0.99
        assert flavours["weight-only"]["difference"] == flavours["sparse"]["difference"] == row["difference"]

    cnn, lstm = record["rows"]
    assert cnn["flavours"]["int8"]["runs"]["QLinearConv"] == 9
    assert cnn["islands"] == []
    assert {"operator": "LSTM", "count": 2, "reason": "there is no integer kernel for it here"} in lstm[
        "islands"
    ]
    # its weights are float when it runs, and packed in the file all the same
    assert lstm["flavours"]["int8-sparse"]["size_bytes"] < lstm["flavours"]["int8"]["size_bytes"] / 8

    # the same command goes on: both are there already
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.press")}
    assert modelpress(monkeypatch, *arguments[:-1]) == 0
    told = capsys.readouterr()
    assert told.err.count("measured before") == 2
    assert "ds-cnn" in told.out
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.press")}
    table = (tmp_path / "networks.md").read_text()
    assert f"| lstm | 834,572 | 5 | 5 | {lstm['flavours']['float']['size_bytes']:,} |" in table
    assert "2 LSTM" in table


def test_a_network_of_no_row_is_refused(tmp_path, monkeypatch, capsys):
    assert modelpress(monkeypatch, "study", "networks", "--rows", "gpt", "-o", tmp_path) == 2
    assert "rows are small-cnn, ds-cnn, mobilenet-v2" in one_line(capsys.readouterr().err)
    assert not list(tmp_path.iterdir())
    with pytest.raises(CommandLineError, match="fits no row"):
        choose_networks(["mlp", "nothing*"])


def test_networks_take_what_is_drawn_for_them():
    for row in choose_networks(["*cnn", "mlp", "text*", "lstm"]):
        with torch.no_grad():
            assert len(row.make().eval()(row.inputs(2, seed=1))) == 2
        assert torch.equal(row.inputs(2, seed=1), row.inputs(2, seed=1))
        assert not torch.equal(row.inputs(2, seed=1), row.inputs(2, seed=2))


def test_numbers_of_words_calibrate_integer_arithmetic(tmp_path):
    record = run_network(TEXT, tmp_path / "m.press", {})
    assert record.weight_layers == record.coded_layers == 6  # the classifier's weight is the embedding's
    assert not record.flavours["int8"].refused
    assert record.flavours["int8"].cosine == record.flavours["int8-sparse"].cosine > 0.98
    runs = record.flavours["int8"].runs
    assert runs is not None
    assert runs["MatMulIntegerToFloat"] + runs["QGemm"] == 4

    # what computes with shapes is no island; products of activations, and what layers share, are told apart
    reasons = {(island.operator, island.reason): island.count for island in record.islands}
    assert not {"Shape", "ConstantOfShape"} & {operator for operator, _ in reasons}
    products = {reason: n for (operator, reason), n in reasons.items() if operator == "MatMul"}
    assert products == {
        "both its inputs are activations; there are integer kernels for constant weights": 2,
        "its weight is made by another node, Transpose, as of one that layers share": 1,
    }


# What must not pass


class Deaf(nn.Module):
    """Hardly hears its input."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x):
        return self.linear(1e-4 * x + torch.arange(8.0))


def numbers(n, generator):
    return torch.randn(n, 8, generator=generator)


def test_outputs_that_hardly_depend_on_the_input_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"deaf: outputs move by .* would prove nothing"):
        run_network(NetworkRow("deaf", "", Deaf, numbers), tmp_path / "m.press", {})


class Odd(nn.Module):
    """Computes something else where batches are larger than that which it was drawn with."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x):
        return self.linear(x) * (2.0 if int(x.shape[0]) > 5 else 1.0)


def test_a_file_that_computes_something_else_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"odd: outputs of flavour float differ from the network's by"):
        run_network(NetworkRow("odd", "", Odd, numbers), tmp_path / "m.press", {})


def test_every_flavour_in_float_is_held_to_the_difference(tmp_path):
    record = run_network(
        NetworkRow("plain", "", lambda: hand_written.mlp((8, 16, 4)), numbers), tmp_path / "m.press", {}
    )
    _check_flavours("plain", record.flavours)
    for flavour in ("float", "weight-only", "sparse"):
        worse = {**record.flavours, flavour: replace(record.flavours[flavour], difference=1e-4)}
        with pytest.raises(ModelError, match=rf"flavour {flavour} differ .* at most 1e-05"):
            _check_flavours("plain", worse)
        unknown = {**record.flavours, flavour: replace(record.flavours[flavour], difference=float("nan"))}
        with pytest.raises(ModelError, match="differ"):
            _check_flavours("plain", unknown)


def test_codes_that_are_not_those_of_the_forward_pass_are_refused(tmp_path):
    torch.manual_seed(0)
    squeezed = compress(
        shaken(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))), torch.randn(2, 8), RECIPE
    )
    squeezed.export(tmp_path / "m.press")
    model, plans = read_artifact(tmp_path / "m.press"), squeezed.report().layers
    assert _checked_codes("n", squeezed, plans, model)[0] == 72

    name, tensor = next(iter(model.quantized().items()))
    fewer = replace(model, tensors={**model.tensors, name: tensor.dequantize()})
    with pytest.raises(ModelError, match=r"n: the artifact holds 24 codes"):
        _checked_codes("n", squeezed, plans, fewer)
    assert isinstance(tensor, QuantizedTensor)
    unnamed = (replace(plans[0], bits=None, reason=""), *plans[1:])
    with pytest.raises(ModelError, match="0: neither in codes, nor is there a reason"):
        _checked_codes("n", squeezed, unnamed, fewer)


def test_statistics_are_those_of_the_inputs():
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)).eval()
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 2 + 5
    settled(network, [x])
    torch.testing.assert_close(network[0].running_mean, x.mean(0))
    torch.testing.assert_close(network[0].running_var, x.var(0))
    assert (network[0].momentum, network[0].training) == (0.1, False)


def test_spread_tells_constant_outputs_from_others():
    constant = np.tile(np.array([[1.0, 7.0]], np.float32), (4, 1))
    assert spread(constant) == 0.0
    assert spread(np.zeros((3, 2), np.float32)) == 0.0
    assert spread(np.array([[0.0], [1.0]], np.float32)) == 1.0


# What is published


def test_the_page_shows_what_the_command_measured():
    record = json.loads((ROOT / "benchmarks" / "results" / "networks.json").read_text())
    records = TypeAdapter(list[NetworkRecord]).validate_python(record["rows"])
    assert [row.name for row in records] == list(ROWS)
    page = (ROOT / "docs" / "own-network.md").read_text()
    for table in networks_markdown(records).strip().split("\n\n"):
        assert table in page

    for row in records:
        assert row.coded_layers == row.weight_layers
        assert row.difference <= LARGEST_DIFFERENCE < LEAST_SPREAD <= row.spread
        assert all(flavour.cosine > 0.9 for flavour in row.flavours.values())
