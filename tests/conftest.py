"""Shared inputs. Real data are found beside the project or through MODELPRESS_SHARED; without them tests skip."""

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, settings

from modelpress.export.graphs.building import INPUT, GraphBuilder, with_initializers
from modelpress.export.onnx_flavours.int8 import Int8Plan
from modelpress.export.quantized import QuantizedModel, QuantizedTensor

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("default")

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("MODELPRESS_SHARED", ROOT.parent / "shared"))


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


def with_int8_weights(plan: Int8Plan) -> onnx.ModelProto:
    """A planned int8 model with a byte for every weight."""
    weights = {name: weight.codes() for name, weight in plan.weights.items()}
    return with_initializers(plan.graph, {**plan.tensors, **weights})


def small_model() -> QuantizedModel:
    """One asymmetric pruned convolution, one symmetric linear layer, float biases."""
    rng = np.random.default_rng(7)
    support = rng.random((4, 2, 3, 3)) < 0.4
    conv = QuantizedTensor(
        np.where(support, rng.integers(0, 16, support.shape), 0).astype(np.uint8),
        bits=4,
        scale=np.float32(0.02),
        offset=np.float32(-0.15),
        support=support,
        channel_scale=np.array([1.0, -0.5, 2.0, 0.25], np.float32),
    )
    linear = QuantizedTensor(
        rng.integers(-3, 4, (3, 4)).astype(np.int8), bits=3, scale=np.array([0.1, 0.2, 0.3], np.float32)
    )
    builder = GraphBuilder("small", (2, 6, 6))
    x = builder.conv("conv", INPUT, conv, rng.standard_normal(4).astype(np.float32), stride=1, padding=1)
    x = builder.flatten(builder.global_average_pool(builder.relu(x)))
    x = builder.gemm("fc", x, linear, np.zeros(3, np.float32))
    return builder.finish(x, n_outputs=3, metadata={"modelpress.version": "test"})


def sparse_model() -> QuantizedModel:
    """A network whose weights are mostly zero, asymmetric and symmetric: stored as CSR."""
    rng = np.random.default_rng(11)
    support = rng.random((16, 16, 3, 3)) < 0.12
    first = QuantizedTensor(
        np.where(support, rng.integers(0, 16, support.shape), 0).astype(np.uint8),
        bits=4,
        scale=np.float32(0.02),
        offset=np.float32(-0.15),
        support=support,
        channel_scale=rng.standard_normal(16).astype(np.float32),
    )
    kept = rng.random((4, 16, 3, 3)) < 0.12
    second = QuantizedTensor(
        np.where(kept, rng.integers(-127, 128, kept.shape), 0).astype(np.int8), bits=8, scale=np.float32(0.01)
    )
    builder = GraphBuilder("sparse", (16, 6, 6))
    x = builder.relu(
        builder.conv("a", INPUT, first, np.linspace(1, 2, 16, dtype=np.float32), stride=1, padding=1)
    )
    x = builder.conv("b", x, second, np.ones(4, np.float32), stride=2, padding=1)
    x = builder.flatten(builder.global_average_pool(x))
    return builder.finish(x, n_outputs=4, metadata={})


# The command line, in this process. Rounds of latency are cut short.
QUICK = ["--set", "bench.batch=[1]", "--set", "bench.threads=[1]", "--set", "bench.rounds=1"]
QUICK += ["--set", "onnx=[float]"]


def modelpress(monkeypatch, *arguments):
    """Run a command; returns its exit code."""
    from modelpress.toolkit.commands import cli

    monkeypatch.setattr("sys.argv", ["modelpress", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return 1
        return stop.code or 0
    return 0


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*arguments):
        code = modelpress(monkeypatch, *arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def one_line(err):
    """An error as users should see it."""
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    return err
