import sys
from pathlib import Path

import pytest
import torch

from modelpress.toolkit.studies import gpu
from modelpress.toolkit.studies.gpu import Step, carry_out, steps
from modelpress.toolkit.studies.published.rows import ROWS

HERE = (Path("data"), Path("net.pt"), Path("teacher.th"))


def code(text):
    return "-c", text


def test_every_trained_row_is_a_step_and_the_dense_network_comes_before_the_frontier():
    todo = steps(Path("out"), *HERE)
    names = [step.name for step in todo]
    assert names[:3] == ["tests", "throughput", "finetuned-70"]
    assert {name for name, row in ROWS.items() if row.kind != "post-training"} <= set(names)
    assert names.index("dense") < names.index("bytes-64k")
    assert len(set(names)) == len(names)
    frontier = todo[names.index("bytes-49k")]
    assert frontier.needs == (Path("out/dense.safetensors"),)
    assert "model.teacher=teacher.th" in frontier.arguments
    plain = steps(Path("out"), HERE[0], HERE[1], None)
    assert not any("teacher" in argument for step in plain for argument in step.arguments)


def test_a_failing_step_loses_itself_alone_and_done_ones_are_not_repeated(tmp_path, capfd):
    missing = tmp_path / "gone"
    todo = [
        Step("good", code("print('once')")),
        Step("bad", code("raise SystemExit(3)")),
        Step("needy", code("print('never')"), needs=(missing,)),
        Step("after", code("print('on')")),
    ]
    assert carry_out(todo, tmp_path, 60) == ["bad", "needy"]
    missing.touch()
    assert carry_out(todo, tmp_path, 60) == ["bad"]
    out = capfd.readouterr().out
    assert out.count("once") == out.count("never") == 1
    assert f"{missing} is not there" in out


def test_a_slice_stops_the_step_that_outlasts_it(tmp_path):
    kept = tmp_path / "state"
    patient = f"""
import time
from pathlib import Path
try:
    time.sleep(600)
except KeyboardInterrupt:
    Path({str(kept)!r}).touch()
    raise SystemExit(130)
"""
    todo = [Step("long", code(patient)), Step("next", code("print('never')"))]
    assert carry_out(todo, tmp_path, 4) == []
    assert kept.is_file()
    assert not (tmp_path / "done").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_the_command_says_so(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu"])
    assert gpu.main(["--data-dir", "d", "--checkpoint", "c"]) == 1
    assert "no CUDA device" in capsys.readouterr().err
