"""What the README prints runs as it is printed."""

import re
import shlex

import pytest

from tests.helpers.command_line import modelpress
from tests.helpers.options import with_options
from tests.helpers.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
# What is left out here only makes the lines faster.
FASTER = {
    "train": ["--epochs", "0"],
    "quantize": ["--epochs", "0"],
    "bench": ["--batch", "1", "--threads", "1", "--rounds", "1"],
}


def block_after(heading, language):
    return re.search(rf"```{language}\n(.*?)```", README.partition(heading)[2], re.DOTALL)[1]


@pytest.mark.timeout(600)
def test_the_stages_run_one_after_the_other(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    lines = block_after("**Stage by stage.**", "sh").splitlines()
    assert len(lines) == 10
    for line in lines:
        program, command, *arguments = shlex.split(line, comments=True)
        assert program == "modelpress"
        assert modelpress(monkeypatch, command, *with_options(arguments, *FASTER.get(command, []))) == 0, line
    assert {"dense.onnx", "model.press", "report.html", "handoff.zip"} <= {p.name for p in tmp_path.iterdir()}


def test_the_loop_of_ones_own_runs(monkeypatch, tmp_path, capsys):
    pytest.importorskip("torch")
    code = block_after("**Your own network, your own loop.**", "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "pruned step by step (60% of all), 4 bits" in shown
    assert f"size_bytes={(tmp_path / 'own.press').stat().st_size}" in shown


def test_the_public_names_it_shows_exist():
    import modelpress as package

    shown = set(re.findall(r"modelpress\.(\w+)\(", block_after("**From Python.**", "python")))
    shown |= set(re.findall(r"`(\w+)`", block_of_names()))
    assert len(shown) > 8
    assert shown <= set(package.__all__)


def block_of_names():
    """The first column of the table of public names."""
    table = README.partition("| name | what it does |")[2].partition("\n\n")[0]
    return "".join(line.split("|")[1] for line in table.splitlines() if line.count("|") > 2)
