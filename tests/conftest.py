"""Shared inputs. Real data are found beside the project or through MODELPRESS_SHARED; without them tests skip."""

import os
from pathlib import Path

# Tests run on every core already: set before anything reads it, for the processes that tests start too.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, settings

from tests.helpers.command_line import modelpress
from tests.helpers.paths import SHARED

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("default")


@pytest.fixture(scope="session")
def cifar10_folder() -> Path:
    folder = SHARED / "cifar10"
    if not (folder / "cifar-10-batches-bin" / "test_batch.bin").is_file():
        pytest.skip(f"needs CIFAR-10 (binary version) in {folder}; set MODELPRESS_SHARED")
    return folder


@pytest.fixture(scope="session")
def real_checkpoint() -> Path:
    path = SHARED / "checkpoints" / "resnet20_cifar10_pretrained.pt"
    if not path.is_file():
        pytest.skip(f"needs the pretrained ResNet-20 at {path}; set MODELPRESS_SHARED")
    return path


@pytest.fixture
def optimised(tmp_path):
    """What ONNX Runtime makes of a model when it loads it."""

    def optimise(model: onnx.ModelProto) -> onnx.ModelProto:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(tmp_path / "optimised.onnx")

    return optimise


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*arguments):
        code = modelpress(monkeypatch, *arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
