"""What a sweep costs beside its trials; a program of its own:

    python -m modelpress.toolkit.sweeps.overhead -o FILE.json [--empty 100] [--real 3]

Two figures. Trials that hardly do anything (no epoch, a network of 200 weights) tell what a sweep adds to each: asking,
sending, files there and back, telling. Trials of some length (the digits, finetuned from one dense network, with all
cores) are compared with the same recipes run alone. Alone they run in one process, one after another, as trials run in
a worker that is there already. Keep the machine quiet meanwhile.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from modelpress.benchmarks.environment import describe_environment, usable_cores
from modelpress.toolkit.compression.judging.held_out import HeldOut
from modelpress.toolkit.compression.run import run_recipe
from modelpress.toolkit.output_folder import check_output_file, write_json
from modelpress.toolkit.progress import Progress, Silent
from modelpress.toolkit.recipe import load_recipe
from modelpress.toolkit.sweeps.driver import run_sweep
from modelpress.toolkit.sweeps.plan import Plan, Resources, Sweep

_NETWORK = """
from torch import nn
def smallest():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 4))
"""
_QUICK = {"onnx": ["float"], "run.device": "cpu"}


@dataclass(frozen=True)
class Overhead:
    """Trials of one kind, seconds.

    Attributes:
        trials: How many.
        in_sweep: Of each, from its sending to the last of its files.
        alone: Of each, the same recipes without a sweep.
        whole: Of the sweep, the start and the end of its cluster included.
    """

    trials: int
    in_sweep: tuple[float, ...]
    alone: tuple[float, ...]
    whole: float

    def facts(self) -> dict[str, Any]:
        """As the record holds them."""
        medians = median(self.in_sweep), median(self.alone)
        return {
            "trials": self.trials,
            "seconds_in_sweep": medians[0],
            "seconds_alone": medians[1],
            "added_seconds": medians[0] - medians[1],
            "ratio": medians[0] / medians[1],
            "seconds_of_the_sweep": self.whole,
        }


def overhead(plan: Plan, folder: Path, n_alone: int, progress: Progress) -> Overhead:
    """Run a grid, and its first cells alone.

    Args:
        plan: Of sampler grid.
        folder: For both.
        n_alone: How many cells.
        progress: Told of trials.
    """
    alone = []
    for number in range(n_alone + 1):
        recipe = plan.recipe(plan.sweep.cell(max(number - 1, 0)))
        began = time.monotonic()
        run_recipe(recipe, folder / f"alone-{number}", held_out=HeldOut())
        if number:  # the first one warms up
            alone.append(time.monotonic() - began)
            progress.note(f"alone: {alone[-1]:.2f} s")

    began = time.monotonic()
    record = run_sweep(plan, folder / "sweep", address=None, resume=False, progress=progress)
    whole = time.monotonic() - began
    # a worker's first trial imports what the others find
    seconds = [trial["seconds"] for trial in record["trials"][usable_cores() // plan.sweep.resources.cpus :]]
    return Overhead(len(record["trials"]), tuple(seconds), tuple(alone), whole)


def empty_plan(folder: Path, n_trials: int) -> Plan:
    """Trials that hardly do anything."""
    draw = np.random.default_rng(0)
    np.savez(
        folder / "data.npz",
        images=draw.integers(0, 255, (80, 1, 8, 8)).astype(np.uint8),
        labels=np.arange(80) % 4,
    )
    (folder / "network.py").write_text(_NETWORK)
    settings = {
        "data.source": str(folder / "data.npz"),
        "model.factory": f"{folder / 'network.py'}:smallest",
        "prune.exclude": [],
        "train.epochs": 0,
        "finetune.epochs": 0,
        **_QUICK,
    }
    return _grid(settings, n_trials, Resources())


def real_plan(folder: Path, n_trials: int) -> Plan:
    """The digits, finetuned for six epochs from one dense network, on all cores."""
    run_recipe(
        load_recipe(None, {"train.epochs": 4, "finetune.epochs": 0, **_QUICK}),
        folder / "dense",
        held_out=HeldOut(),
    )
    settings = {
        "model.checkpoint": str(folder / "dense" / "dense.safetensors"),
        "finetune.epochs": 6,
        **_QUICK,
    }
    return _grid(settings, n_trials, Resources(cpus=usable_cores()))


def _grid(settings: dict[str, Any], n_trials: int, resources: Resources) -> Plan:
    sweep = {
        "set": settings,
        "search": {"seed": {"grid": list(range(n_trials))}},
        "objectives": [{"measure": "validation"}, {"measure": "bytes"}],
        "sampler": "grid",
        "trials": n_trials,
        "resources": resources.model_dump(),
    }
    return Plan(Sweep.model_validate(sweep), None)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both and write the record."""
    parser = argparse.ArgumentParser(description="What a sweep costs beside its trials.")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--overwrite", action="store_true", help="replace the file")
    parser.add_argument("--empty", type=int, default=100, metavar="N", help="trials that hardly do anything")
    parser.add_argument("--real", type=int, default=3, metavar="N", help="trials of some length")
    options = parser.parse_args(arguments)
    check_output_file(options.output, overwrite=options.overwrite)

    found = {}
    with tempfile.TemporaryDirectory(prefix="modelpress-overhead-") as name:
        for kind, make, n_trials, n_alone in (
            ("empty", empty_plan, options.empty, min(options.empty, 10)),
            ("real", real_plan, options.real, options.real),
        ):
            folder = Path(name) / kind
            folder.mkdir()
            found[kind] = overhead(make(folder, n_trials), folder, n_alone, Silent()).facts()
            print(f"{kind}: {found[kind]}", flush=True)
    write_json(options.output, {"kind": "sweep-overhead", **found, "environment": describe_environment()})


if __name__ == "__main__":
    main()
