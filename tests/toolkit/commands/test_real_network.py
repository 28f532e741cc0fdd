"""The main job on the real CIFAR-10 and the real ResNet-20, post-training."""

import pytest

from modelpress.benchmarks.records import read_results
from tests.helpers.command_line import QUICK, modelpress
from tests.helpers.paths import RECIPES

RECIPE = RECIPES / "resnet20-cifar10.yaml"


def run(folder, cifar10_folder, real_checkpoint, *arguments):
    with pytest.MonkeyPatch.context() as monkeypatch:
        code = modelpress(
            monkeypatch,
            "run",
            "-c",
            RECIPE,
            "--data-dir",
            cifar10_folder,
            "--checkpoint",
            real_checkpoint,
            "--epochs",
            0,
            "-o",
            folder,
            *QUICK,
            "--set",
            "data.validation=0.01",  # watched on the way only
            *arguments,
        )
    assert code == 0
    return read_results(folder / "results.json")


def test_six_bits_without_training_keep_the_published_accuracy(tmp_path, cifar10_folder, real_checkpoint):
    results = run(
        tmp_path / "o",
        cifar10_folder,
        real_checkpoint,
        "--set",
        "prune.sparsity=0",
        "--set",
        "quantize.bits=6",
    )
    dense, packed, emitted = results.models
    assert dense.n_images == 9_982
    assert round(100 * dense.top1, 2) == 91.50
    assert 100 * packed.top1 == pytest.approx(91.45, abs=0.1)
    assert packed.top1 == emitted.top1
    assert all(record.differing_labels == 0 for record in results.fidelity)


def test_seventy_percent_and_four_bits_keep_every_promise_of_size(tmp_path, cifar10_folder, real_checkpoint):
    flavours = ["--set", "onnx=[float, weight-only, sparse, int8, int8-sparse]"]
    results = run(tmp_path / "o", cifar10_folder, real_checkpoint, *flavours)
    _, packed, *emitted = results.models
    assert packed.size_bytes < 70_000
    assert packed.sparsity == pytest.approx(187_835 / 270_896)
    by_flavour = {model.flavour or "float": model for model in emitted}
    for flavour, limit in (
        ("weight-only", 157_000),
        ("sparse", 100_000),
        ("int8", 293_000),
        ("int8-sparse", 108_000),
    ):
        assert by_flavour[flavour].size_bytes <= limit
    for flavour in ("float", "weight-only", "sparse"):
        assert by_flavour[flavour].top1 == packed.top1
    assert by_flavour["int8"].top1 == by_flavour["int8-sparse"].top1 == pytest.approx(packed.top1, abs=0.004)
    for flavour in ("int8", "int8-sparse"):
        assert by_flavour[flavour].audit.optimised["QLinearConv"] == 21
        assert by_flavour[flavour].audit.optimised["QLinearAdd"] == 9
    weights = [step for step in results.parity if step.what == "weights"]
    assert sum(step.equal for step in weights) == 3
