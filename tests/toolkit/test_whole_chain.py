"""Speech, text in pictures and language through every command, and what is handed over without any of ours."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

from modelpress.export.handoff.bundle_files import verify as bundle_verify
from modelpress.toolkit.commands.bundle import claims as bundle_claims
from tests.helpers.command_line import modelpress
from tests.helpers.sequence_models import MODELS, calls_of

ALONE = """
import runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("modelpress", "onnx", "PIL", "scipy", "torch"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def alone(script, *arguments):
    """Run a script of a bundle where nothing but numpy and onnxruntime is."""
    command = [sys.executable, "-I", "-B", "-c", ALONE, str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(params=MODELS)
def packed(request, tmp_path, monkeypatch, capsys):
    """Folder of a model, its artifact, and calls to calibrate on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bundle_claims, "ROUNDS", 1)
    monkeypatch.setattr(bundle_verify, "_MAX_SECONDS", 0)
    onnx.save(MODELS[request.param](), "m.onnx")
    (tmp_path / "calls").mkdir()
    for k, call in enumerate(calls_of(request.param)):
        np.savez(f"calls/{k}.npz", **call)

    def run(*arguments):
        code = modelpress(monkeypatch, *arguments, "--json", "-q")
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out)

    report = run("pack", "m.onnx", "-o", "m.press", "--min-elements", "200")
    assert report["quantized_tensors"] == {"speech": 3, "text_line": 4, "language": 8}[request.param]
    return request.param, run


def test_a_model_of_sequences_goes_through_every_command(packed, tmp_path):
    name, run = packed
    steps = {
        c["claim"]: c for c in run("verify", "m.press", "--against", "m.onnx", "--input", "calls")["claims"]
    }
    assert all(step["is"] == "held" for step in steps.values())
    assert "6 calls given" in steps["ONNX Runtime"]["detail"]

    int8 = ["--flavour", "int8", "--calibration-data", "calls"]
    assert run("onnx", "m.press", *int8, "-o", "int8.onnx", "--noise")["noise"]["loss"] < 0.05

    quick = ["--input", "calls", "--batch", "1", "--threads", "1", "--rounds", "1"]
    results = run("bench", "m.press", "int8.onnx", *quick)
    outputs = [step for step in results["parity"] if step["what"] == "outputs"]
    assert len(outputs) == 3
    assert all(step["n_compared"] for step in outputs)
    assert all(len(model["latency"]) == 1 for model in results["models"])

    handed = run("bundle", "m.press", *int8, "--input", "calls", "-o", "handed", "--no-zip")["manifest"]
    assert 0 < handed["claims"]["reference"]["noise"] < 0.05
    assert len(handed["claims"]["reference"]["calls"]) == 6
    for script in ("verify.py", "port/check.py"):
        done = alone(tmp_path / "handed" / script)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
    done = alone(tmp_path / "handed" / "run.py", "calls/0.npz", "-o", "made.npz")
    assert done.returncode == 0, done.stderr
    assert {output.name for output in MODELS[name]().graph.output} == set(np.load("made.npz"))

    held = run("verify", "handed")
    assert {c["claim"] for c in held["claims"] if c["is"] == "not checked"} == {
        "latency",
        "model.press, activation ranges",
    }
