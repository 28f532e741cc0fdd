"""The examples run as printed, and come to what they say."""

import os
import subprocess
import sys
import warnings

import pytest

from tests.helpers.paths import ROOT


def run_example(folder, name, *arguments):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / name), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_packing_an_onnx_model(tmp_path):
    shown = run_example(tmp_path, "pack_onnx.py")
    assert "conv2.weight: shape (64, 16, 3, 3), 6 bits" in shown
    assert "again.onnx: the same outputs" in shown
    assert list(tmp_path.iterdir()) == []


def test_packing_a_model_of_ones_own(tmp_path):
    import onnx

    from examples.pack_onnx import small_network

    onnx.save(small_network(), tmp_path / "own.onnx")
    assert "own.onnx: 41,550 bytes" in run_example(tmp_path, "pack_onnx.py", "own.onnx", "--bits", "4")


@pytest.mark.timeout(600)
def test_compressing_a_network_from_python(tmp_path):
    shown = run_example(tmp_path, "compress_digits.py", "--epochs", "0", "-o", "digits")
    assert "| model.press |" in shown
    assert "4 bits" in shown
    assert (tmp_path / "digits" / "report.html").is_file()


@pytest.mark.timeout(600)
def test_a_loop_of_lightning(tmp_path):
    pytest.importorskip("pytorch_lightning", reason="pytorch-lightning is not installed")
    from examples.lightning_loop import main

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own
        assert main(str(tmp_path / "own.press")) > 0.93
    assert (tmp_path / "own.press").stat().st_size < 2000
