"""Several processes train one network as a single one would."""

import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from modelpress.export.errors import InputError  # noqa: E402
from modelpress.toolkit.training.team import Team, current_team  # noqa: E402
from tests.helpers import joint_training  # noqa: E402
from tests.helpers.paths import ROOT  # noqa: E402

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments],
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_two_processes_end_with_the_network_of_one(tmp_path):
    alone = tmp_path / "alone"
    joint_training.main(alone)
    together = tmp_path / "together"
    done = torchrun("-m", "tests.helpers.joint_training", str(together))
    assert done.returncode == 0, done.stderr[-3000:]
    expected = torch.load(f"{alone}.0", weights_only=True)
    first, second = (torch.load(f"{together}.{rank}", weights_only=True) for rank in (0, 1))
    for name, value in expected["state"].items():
        torch.testing.assert_close(first["state"][name], value, rtol=1e-4, atol=1e-5, msg=name)
        assert torch.equal(first["state"][name], second["state"][name]), name  # the two never part
    assert first["losses"] == pytest.approx(expected["losses"], rel=1e-5)
    before = joint_training.network().state_dict()
    assert not torch.equal(before["network.0.weight"], expected["state"]["network.0.weight"])


def test_a_whole_run_started_by_torchrun_writes_one_result(tmp_path):
    short = [
        "--set",
        "train.epochs=1",
        "--epochs",
        "1",
        "--set",
        "bench.batch=[1]",
        "--set",
        "bench.rounds=1",
        "--set",
        "onnx=[float]",
    ]
    done = torchrun("-m", "modelpress.toolkit.commands.cli", "run", "-o", str(tmp_path / "run"), *short)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 processes" in done.stderr
    assert (tmp_path / "run" / "model.press").is_file()
    assert done.stderr.count("decodes bit-exactly") == 1
    assert not list((tmp_path / "run").glob(".*state*"))


def test_other_commands_refuse_torchrun(tmp_path):
    done = torchrun("-m", "modelpress.toolkit.commands.cli", "train", "-o", str(tmp_path / "net.safetensors"))
    assert done.returncode == 1
    assert "start this command without torchrun" in done.stderr


def test_uneven_shares_are_refused():
    with pytest.raises(InputError, match="5 images per step cannot be shared evenly by 2 processes"):
        Team(0, 2).part(5)


def test_alone_nothing_is_exchanged():
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.full((2,), 3.0)
    team = current_team()
    team.average_gradients([weight])
    assert (team.size, team.first, weight.grad.tolist()) == (1, True, [3.0, 3.0])
    assert team.any(True, torch.device("cpu"))
