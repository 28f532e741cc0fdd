"""The main job on the real CIFAR-10 and the real ResNet-20, post-training."""

import pytest

from benchmarks.records import read_results
from tests.conftest import ROOT
from tests.toolkit.test_cli import QUICK, modelpress

RECIPE = ROOT / "recipes" / "resnet20-cifar10.yaml"


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


def test_seventy_percent_and_four_bits_fit_into_seventy_thousand_bytes(
    tmp_path, cifar10_folder, real_checkpoint
):
    packed = run(tmp_path / "o", cifar10_folder, real_checkpoint).models[1]
    assert packed.size_bytes < 70_000
    assert packed.sparsity == pytest.approx(187_835 / 270_896)
