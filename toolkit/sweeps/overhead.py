"""What a sweep costs beside its trials; a program of its own:

    python -m modelpress.toolkit.sweeps.overhead -o FILE.json [--empty 100] [--real 6]

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
from modelpress.toolkit.progress import Silent
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
        starting, working, finishing: Of the sweep: until its cluster stands, until the last trial is told, and with the
            front on the test set and the page.
    """

    trials: int
    in_sweep: tuple[float, ...]
    alone: tuple[float, ...]
    starting: float
    working: float
    finishing: float

    def facts(self) -> dict[str, Any]:
        """As the record holds them."""
        medians = median(self.in_sweep), median(self.alone)
        return {
            "trials": self.trials,
            "seconds_in_sweep": medians[0],
            "seconds_alone": medians[1],
            "added_seconds": medians[0] - medians[1],
            "ratio": medians[0] / medians[1],
            "each_in_sweep": self.in_sweep,
            "each_alone": self.alone,
            "seconds_to_start": self.starting,
            "seconds_of_all_trials": self.working,
            "seconds_to_finish": self.finishing,
        }


class _Clock(Silent):
    """Notes when the trials began and ended."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0

    def start(self, title: str, total: int, *, done: int = 0) -> None:
        """The first of several counts."""
        self.began = self.began or time.monotonic()

    def finish(self) -> None:
        """Likewise."""
        self.ended = self.ended or time.monotonic()


def overhead(plan: Plan, folder: Path, n_alone: int) -> Overhead:
    """Run a grid, and its first cells alone.

    Args:
        plan: Of sampler grid.
        folder: For both.
        n_alone: How many cells.
    """
    import torch

    # as many threads as a trial's worker gives it: small networks take longer on more
    torch.set_num_threads(plan.sweep.resources.cpus)

    alone = []
    for number in range(n_alone + 1):
        recipe = plan.recipe(plan.sweep.cell(max(number - 1, 0)))
        began = time.monotonic()
        run_recipe(recipe, folder / f"alone-{number}", held_out=HeldOut())
        if number:  # the first one warms up
            alone.append(time.monotonic() - began)

    began, clock = time.monotonic(), _Clock()
    record = run_sweep(plan, folder / "sweep", address=None, resume=False, progress=clock)
    ended = time.monotonic()

    # a worker's first trial imports what the others find, and there may be a worker for every core
    seconds = [trial["seconds"] for trial in record["trials"][usable_cores() :]]
    return Overhead(
        trials=len(record["trials"]),
        in_sweep=tuple(seconds),
        alone=tuple(alone),
        starting=clock.began - began,
        working=clock.ended - clock.began,
        finishing=ended - clock.ended,
    )


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
    parser.add_argument("--real", type=int, default=6, metavar="N", help="trials of some length")
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
            found[kind] = overhead(make(folder, n_trials), folder, n_alone).facts()
            print(f"{kind}: {found[kind]}", flush=True)
    write_json(options.output, {"kind": "sweep-overhead", **found, "environment": describe_environment()})


if __name__ == "__main__":
    main()
