import json

import numpy as np
import onnx
import pytest

from modelpress.export.onnx_flavours import FLAVOURS
from modelpress.export.press.writing import write_artifact
from modelpress.export.runtime import open_session, run_batched
from tests.helpers.command_line import modelpress
from tests.helpers.models import small_model


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "small.press"
    write_artifact(path, small_model())
    return path


@pytest.fixture
def calibration(tmp_path):
    path = tmp_path / "inputs.npy"
    np.save(path, np.random.default_rng(0).standard_normal((20, 2, 6, 6)).astype(np.float32))
    return path


@pytest.mark.parametrize("flavour", list(FLAVOURS))
def test_every_flavour_is_written_and_runs(flavour, artifact, calibration, monkeypatch, capsys):
    target = artifact.with_suffix(".onnx")
    options = ["--calibration-data", calibration] if flavour.startswith("int8") else []
    code = modelpress(monkeypatch, "onnx", artifact, "--flavour", flavour, "-o", target, "--json", *options)
    assert code == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["size_bytes"] == target.stat().st_size
    assert facts["flavour"] == flavour
    onnx.checker.check_model(str(target), full_check=True)
    assert run_batched(open_session(target.read_bytes()), np.load(calibration)).shape == (20, 3)
    if options:
        losses = facts["calibration"]["losses"]  # by min-max and mse; the first of equal ones is taken
        assert list(losses) == ["min-max", "mse"]
        assert any("outputs are off by" in note for note in facts["notes"])
        assert facts["calibration"] == {
            "method": min(losses, key=losses.get),
            "losses": losses,
            "inputs": 20,
            "activations": facts["calibration"]["activations"],
            "reduce_range": False,
        }


@pytest.mark.parametrize("method", ["min-max", "percentile", "mse", "entropy", "best"])
def test_every_calibration_method_gives_a_model_that_agrees(
    method, artifact, calibration, tmp_path, monkeypatch
):
    reference, found = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    assert modelpress(monkeypatch, "onnx", artifact, "-o", reference) == 0
    arguments = ["--flavour", "int8", "--calibration-data", calibration, "--calibration-method", method]
    assert modelpress(monkeypatch, "onnx", artifact, "-o", found, *arguments) == 0
    expected, got = (
        run_batched(open_session(path.read_bytes()), np.load(calibration)) for path in (reference, found)
    )
    assert np.abs(expected - got).max() < 0.1 * np.abs(expected).max()


REFUSALS = [
    (["--flavour", "int8"], "needs calibration data: pass --calibration-data FILE.npy", 1),
    (["--flavour", "sparse", "--reduce-range"], "are for integer flavours; sparse computes in float", 2),
    (["--flavour", "int8", "--calibration-data", "missing.npy"], "missing.npy: cannot be read", 1),
    (["--flavour", "int8", "--calibration-data", "{text}"], "is no NumPy file", 1),
    (["--flavour", "int8", "--calibration-data", "{wrong}"], "(5, 3, 6, 6)", 1),
    (["--flavour", "int8", "--calibration-data", "{empty}"], "at least one", 1),
    (["--flavour", "int8", "--calibration-data", "{nan}"], "NaN", 1),
]


@pytest.mark.parametrize("case", REFUSALS, ids=[message for _, message, _ in REFUSALS])
def test_bad_input_is_one_clear_line_and_nothing_is_written(case, artifact, tmp_path, monkeypatch, capsys):
    arguments, message, expected = case
    files = {name: tmp_path / f"{name}.npy" for name in ("text", "wrong", "empty", "nan")}
    files["text"].write_text("hello")
    np.save(files["wrong"], np.ones((5, 3, 6, 6), np.float32))
    np.save(files["empty"], np.ones((0, 2, 6, 6), np.float32))
    np.save(files["nan"], np.full((5, 2, 6, 6), np.nan, np.float32))
    target = tmp_path / "model.onnx"
    given = [a.format(**{k: str(v) for k, v in files.items()}) for a in arguments]
    assert modelpress(monkeypatch, "onnx", artifact, "-o", target, *given) == expected
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert not target.exists()
