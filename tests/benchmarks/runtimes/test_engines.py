import json

import numpy as np
import pytest

from modelpress.benchmarks.runtimes import engines
from modelpress.benchmarks.runtimes.engines import check_engines, compared, parsed_engines
from modelpress.export.errors import InputError
from modelpress.export.onnx_flavours import write_onnx
from tests.helpers.models import small_model

IMAGES = np.random.default_rng(0).standard_normal((3, 2, 6, 6)).astype(np.float32)


def test_the_reference_evaluator_runs_a_float_file(tmp_path):
    path = tmp_path / "float.onnx"
    write_onnx(path, small_model(), flavour="float")
    (check,) = check_engines([path], ["reference"], {path: IMAGES})
    assert (check.error, check.differing_labels) == ("", 0)
    assert check.relative_error < 1e-5
    assert check.version
    assert check.size_bytes == path.stat().st_size


def test_what_an_engine_cannot_do_is_told_and_nothing_passes_for_it(tmp_path, monkeypatch):
    path = tmp_path / "float.onnx"
    write_onnx(path, small_model(), flavour="float")
    failing = {
        "openvino": "raise ValueError('operator Foo is not implemented')",
        "opencv": engines._RUNTIME_WORKER,
    }
    monkeypatch.setattr(engines, "_PYTHON_WORKERS", failing)
    right, wrong = check_engines([path], ["opencv", "openvino"], {path: IMAGES})
    assert right.relative_error == 0
    assert "operator Foo is not implemented" in wrong.error
    assert wrong.relative_error is None


def test_ties_are_no_differences():
    expected = np.array([[1.0, 1.0, -1.0], [3.0, 0.0, 0.0]], np.float32)
    assert compared(expected, expected[:, [1, 0, 2]])[0] == 1
    assert compared(expected, expected) == (0, 0.0)


def test_unknown_engines_are_refused(call):
    with pytest.raises(InputError, match="engine 'tflite' is unknown; choose among openvino"):
        parsed_engines(["tflite"])
    with pytest.raises(InputError, match="no version of ONNX Runtime"):
        parsed_engines(["onnxruntime==newest"])


def test_the_command_shows_a_table(tmp_path, call):
    path = tmp_path / "float.onnx"
    write_onnx(path, small_model(), flavour="float")
    code, out, err = call(
        "bench", "runtime", path, "--engines", "reference", "--inputs", 2, "-o", tmp_path / "e.json"
    )
    assert code == 0, err
    assert "logits apart" in out or "apart" in out
    (check,) = json.loads((tmp_path / "e.json").read_text())["checks"]
    assert check["relative_error"] < 1e-5
    assert call("bench", "runtime", path)[0] == 2
    assert call("bench", "runtime", path, "--engines", "reference", "--versions", "1.20.0")[0] == 2
