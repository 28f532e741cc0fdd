"""A sweep on two workers of this machine, through the deaths of its workers and of its driver."""

import json
import os
import signal
import time
from importlib.util import find_spec

import pytest
import torch

from modelpress.toolkit.compression.judging.held_out import JUDGED_ON, HeldOut
from modelpress.toolkit.compression.run import run_recipe
from modelpress.toolkit.output_folder import read_manifest
from modelpress.toolkit.sweeps.plan import load_plan
from tests.toolkit.sweeps.small_sweep import PATIENCE_S, driver, written

pytestmark = pytest.mark.skipif(
    find_spec("optuna") is None or find_spec("ray") is None, reason="needs the extra sweep: Optuna and Ray"
)


@pytest.fixture
def config(tmp_path):
    """Long enough to be killed in the middle."""
    return written(tmp_path, network=tmp_path, epochs=8)


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
