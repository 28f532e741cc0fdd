"""What a sweep came to: the front, measured on the test set once, `sweep.json` and the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelpress import __version__
from modelpress.benchmarks.environment import describe_environment
from modelpress.benchmarks.records import Results, read_results
from modelpress.benchmarks.report.comparison import headline_model
from modelpress.benchmarks.report.sweep_page import write_sweep_page
from modelpress.benchmarks.report.tables import headline_latency
from modelpress.export.errors import ModelpressError
from modelpress.toolkit.compression.judging.held_out import JUDGED_ON, measure_on_test
from modelpress.toolkit.compression.run_folder import REPORT, RESULTS, recorded_recipe
from modelpress.toolkit.output_folder import read_manifest, write_json
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.sweeps.memory import Memory, Remembered
from modelpress.toolkit.sweeps.objectives import Direction
from modelpress.toolkit.sweeps.plan import Plan

SCHEMA_VERSION = 1
TRIALS, RECORD, PAGE = "trials", "sweep.json", "sweep.html"


def trial_folder(folder: Path, number: int) -> Path:
    """Where the files of a trial are.

    Example:
        >>> trial_folder(Path("sweep"), 7).as_posix()
        'sweep/trials/0007'
    """
    return folder / TRIALS / f"{number:04d}"


def finish(
    plan: Plan, folder: Path, memory: Memory, direction: Direction, progress: Progress
) -> dict[str, Any]:
    """Measure the front on the test set, each point once, and write the record and the page.

    Raises:
        ModelpressError: No trial was completed.
    """
    trials = memory.trials()
    complete = [trial for trial in trials if trial.state == "complete"]
    if not complete:
        errors = list(dict.fromkeys(trial.error for trial in trials if trial.error))
        raise ModelpressError(f"no trial was completed: {'; '.join(errors[:3]) or 'all were pruned'}")

    front = direction.front({trial.number: trial.values for trial in complete if trial.within})
    if not front:
        progress.note("no trial keeps all limits: there is no front")
    tested = {}
    for number in front:
        results = _on_test(plan, memory, folder, number, progress)
        tested[number] = _figures(results)

    facts = [_trial(trial, plan, folder, tested=tested) for trial in trials]
    record = _record(plan, folder, direction, facts)
    record["importance"] = dict(zip(plan.sweep.measures, memory.importance(), strict=True))
    write_json(folder / RECORD, record)
    write_sweep_page(folder / PAGE, record)
    return record


def _on_test(plan: Plan, memory: Memory, folder: Path, number: int, progress: Progress) -> Results:
    place = trial_folder(folder, number)
    manifest = read_manifest(place) or {}
    if manifest.get(JUDGED_ON) == "test":
        return read_results(place / RESULTS)
    progress.note(f"trial {number} on the test set")
    return measure_on_test(plan.recipe(memory.chosen(number)), place, progress)


def _figures(results: Results) -> dict[str, float | None]:
    packed = headline_model(results)
    latency = headline_latency(packed)
    figure = packed.top1 if packed.metric is None else packed.metric.value
    return {"figure": figure, "latency_ms": None if latency is None else latency.p50_ms}


def _record(
    plan: Plan,
    folder: Path,
    direction: Direction,
    trials: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    sweep = plan.sweep
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "sweep",
        "modelpress": __version__,
        "environment": describe_environment(),
        "recipe": recorded_recipe(plan.base, folder),
        # an address of a database may hold a password
        "sweep": sweep.model_dump(
            mode="json", by_alias=True, exclude={"storage", "base", "set"}, exclude_none=True
        ),
        "objectives": [
            {
                "measure": objective.measure,
                "lower_is_better": lower,
                "at_most": objective.at_most,
                "at_least": objective.at_least,
            }
            for objective, lower in zip(sweep.objectives, direction.lower, strict=True)
        ],
        "front": [trial["number"] for trial in trials if trial["on_front"]],
        "trials": list(trials),
    }


def _trial(
    trial: Remembered,
    plan: Plan,
    folder: Path,
    *,
    tested: Mapping[int, Mapping[str, float | None]],
) -> dict[str, Any]:
    report = trial_folder(folder, trial.number) / REPORT
    return {
        "number": trial.number,
        "state": trial.state,
        "chosen": trial.chosen,
        "values": dict(zip(plan.sweep.measures, trial.values, strict=True)) if trial.values else {},
        "within_limits": trial.within,
        "on_front": trial.number in tested,
        "test": tested.get(trial.number),
        "error": trial.error,
        "attempts": trial.attempts,
        "seconds": trial.seconds,
        "epochs": {str(step): figure for step, figure in sorted(trial.history.items())},
        "report": report.relative_to(folder).as_posix() if report.is_file() else None,
    }
