"""A sweep on two workers of this machine, through the deaths of its workers and of its driver."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import yaml

from modelpress.toolkit.compression.judging.held_out import JUDGED_ON, HeldOut
from modelpress.toolkit.compression.run import run_recipe
from modelpress.toolkit.output_folder import read_manifest
from modelpress.toolkit.sweeps.plan import load_plan

pytestmark = pytest.mark.skipif(
    find_spec("optuna") is None or find_spec("ray") is None, reason="needs the extra sweep: Optuna and Ray"
)
NETWORK = """
from torch import nn
def small():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4)
    )
"""
QUICK = {"onnx": ["float"], "bench.batch": [1], "bench.threads": [1], "bench.rounds": 1}
PATIENCE_S = 600  # of a busy machine


@pytest.fixture
def config(tmp_path):
    """A grid of two trials of a small network, long enough to be killed in the middle."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 4, 1200)
    images = draw.integers(0, 60, (1200, 1, 8, 8)) + 40 * labels[:, None, None, None]
    np.savez(tmp_path / "data.npz", images=images.astype(np.uint8), labels=labels)
    (tmp_path / "network.py").write_text(NETWORK)
    recipe = {
        "data.source": str(tmp_path / "data.npz"),
        "model.factory": f"{tmp_path / 'network.py'}:small",
        "prune.exclude": [],
        "train.epochs": 1,
        "train.padding": 0,
        "finetune.epochs": 8,
        "finetune.batch": 8,
        "finetune.padding": 0,
        "run.device": "cpu",
        **QUICK,
    }
    sweep = {
        "set": recipe,
        "search": {"prune.sparsity": {"grid": [0.3, 0.6]}},
        "objectives": [{"measure": "validation"}, {"measure": "bytes", "at-most": 50_000}],
        "sampler": "grid",
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    return tmp_path / "sweep.yaml"


@contextmanager
def driver(config, *options):
    command = [sys.executable, "-m", "modelpress", "sweep", "-c", config, "-o", config.parent / "out"]
    process = subprocess.Popen(
        [*map(str, command), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def workers(config):
    """Process of every worker that took up a trial, with the trial, in order."""
    log = config.parent / "out" / "study.log"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    told = [
        (line["trial_id"], line["user_attr"]) for line in lines if "user_attr" in line and "trial_id" in line
    ]
    return [(trial, int(facts["worker"].rpartition(":")[2])) for trial, facts in told if "worker" in facts]


def waited(what, process):
    """What a question gives once that is not empty."""
    end = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def has_met_the_test_set(config, number):
    return read_manifest(config.parent / "out" / "trials" / f"{number:04d}")[JUDGED_ON] == "test"


def test_no_death_loses_a_trial_or_changes_its_weights(config):
    trials = config.parent / "out" / "trials"
    with driver(config) as process:
        first, pid = waited(lambda: workers(config), process)[0]
        os.kill(pid, signal.SIGKILL)  # in its first second

        def begun_again():
            state = trials / f"{first:04d}" / ".checkpoint.state.safetensors"
            return state.is_file() and [p for trial, p in workers(config) if trial == first][1:]

        os.kill(waited(begun_again, process)[-1], signal.SIGKILL)  # behind an epoch of the finetuning
        waited(lambda: len([1 for trial, _ in workers(config) if trial == first]) == 3, process)
        process.kill()

    with driver(config, "--resume", "--json") as process:
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    record = json.loads(out)
    assert [trial["state"] for trial in record["trials"]] == ["complete", "complete"]
    assert [trial["chosen"]["prune.sparsity"] for trial in record["trials"]] == [0.3, 0.6]
    assert record["trials"][first]["attempts"] >= 3

    # undisturbed, and alone
    chosen = record["trials"][first]["chosen"]
    alone = config.parent / "alone"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as a trial has: sums of floats depend on it
    try:
        results = run_recipe(load_plan(config).recipe(chosen), alone, held_out=HeldOut())
    finally:
        torch.set_num_threads(threads)
    place = trials / f"{first:04d}"
    assert (place / "model.press").read_bytes() == (alone / "model.press").read_bytes()
    packed = next(model for model in results.models if model.format == "press")
    assert record["trials"][first]["values"] == {"validation": packed.top1, "bytes": packed.size_bytes}

    # only the front has met the test set
    assert record["front"] == [n for n in (0, 1) if has_met_the_test_set(config, n)]
    assert record["front"]
    assert {path.name for path in alone.iterdir()} == {path.name for path in place.iterdir()}
