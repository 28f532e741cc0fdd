"""Several runs side by side: what their files weigh, how right and how fast they are, and what differs between them."""

import os.path
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelpress.benchmarks.records import LatencyRecord, ModelRecord, Results
from modelpress.benchmarks.report.tables import (
    NONE,
    Row,
    headline_latency,
    percent,
    thread_count,
    verdict_at,
    verdict_text,
    with_interval,
)
from modelpress.export.errors import InputError
from modelpress.export.files.names import distinct_names

HEADINGS = {
    "path": "run / file",
    "bytes": "bytes",
    "bytes_change": "change",
    "sparsity": "zeros",
    "top1": "top-1",
    "top1_change": "change, points",
    "p50": "p50",
    "latency_ratio": "latency ratio",
    "own_ratio": "to its own baseline",
}
# of the environment: what makes latencies differ
_MACHINE = ("cpu", "instruction_sets", "cores", "physical_cores", "thread_variables", "system", "sessions")
_VERSIONS = ("onnxruntime", "numpy")


@dataclass(frozen=True)
class Run:
    """Results and what they are called beside others."""

    name: str
    results: Results

    @property
    def headline(self) -> ModelRecord:
        """The file that the run is about."""
        return headline_model(self.results)


def headline_model(results: Results) -> ModelRecord:
    """The file that a run is about: the first artifact, or else the last file."""
    return next((model for model in results.models if model.format == "press"), results.models[-1])


def run_names(paths: Sequence[Path]) -> list[str]:
    """Short names for results files, all different: their folders', else their own, else the ends of their paths.

    Raises:
        InputError: A file is given twice.

    Example:
        >>> run_names([Path("runs/a/results.json"), Path("runs/b/results.json")])
        ['a', 'b']
        >>> run_names([Path("runs/a.json"), Path("runs/b.json")])
        ['a', 'b']
        >>> run_names([Path("x/a/results.json"), Path("y/a/results.json")])
        ['x/a/results.json', 'y/a/results.json']
    """
    resolved = [Path(os.path.realpath(path)) for path in paths]  # unlike resolve, takes links in a circle
    twice = [str(path) for path, n in Counter(resolved).items() if n > 1]
    if twice:
        raise InputError(f"{twice[0]} is given twice; give each results file once")

    choices = ([path.parent.name for path in resolved], [path.stem for path in paths])
    return next(
        (names for names in choices if len(set(names)) == len(names) and all(names)), distinct_names(paths)
    )


def comparison_rows(runs: Sequence[Run]) -> list[Row]:
    """The headline file of every run beside that of the first, then files whose names several runs share.

    Every row is compared with the first of its group; a group begins where ``starts_group`` is not empty.
    """
    rows = []
    for group in _groups(runs):
        rows += [_row(member, group[0], first=k == 0) for k, member in enumerate(group)]
    return rows


_Member = tuple[Run, ModelRecord]


def _groups(runs: Sequence[Run]) -> Iterator[list[_Member]]:
    headlines = [(run, run.headline) for run in runs]
    yield headlines

    # a group that only repeats the first one says nothing new
    shown = {(run.name, model.path) for run, model in headlines}
    names = dict.fromkeys(model.path for run in runs for model in run.results.models)
    for name in names:
        group = [(run, model) for run in runs for model in run.results.models if model.path == name]
        if len(group) > 1 and not shown.issuperset((run.name, name) for run, _ in group):
            yield group


def _row(member: _Member, reference: _Member, *, first: bool) -> Row:
    (run, model), (_, other) = member, reference
    here, there = _common_latency(model, other)

    return {
        "path": f"{run.name} / {model.path}",
        "starts_group": "yes" if first else "",
        "bytes": f"{model.size_bytes:,}",
        "bytes_change": NONE if first else _bytes_change(model.size_bytes, other.size_bytes),
        "sparsity": percent(model.sparsity, digits=2),
        "top1": with_interval(model.top1, model.top1_interval),
        "top1_change": NONE
        if first or model.top1 is None or other.top1 is None
        else f"{100 * (model.top1 - other.top1):+.2f}",
        "p50": NONE if here is None else _p50(here),
        "latency_ratio": NONE
        if first or here is None or there is None
        else f"{here.p50_ms / there.p50_ms:.2f}",
        "own_ratio": NONE if here is None else _against_own_baseline(run, model, here),
    }


def _against_own_baseline(run: Run, model: ModelRecord, latency: LatencyRecord) -> str:
    """The verdict of the run; where it gave none, the ratio of medians."""
    baseline = run.results.models[0]
    verdict = verdict_at(model, latency)
    if verdict is not None:
        return verdict_text(verdict)
    same = (there for there in baseline.latency if _setting(there) == _setting(latency))
    reference = None if model is baseline else next(same, None)
    return NONE if reference is None else f"{latency.p50_ms / reference.p50_ms:.2f}"


def _setting(record: LatencyRecord) -> tuple[int, int]:
    return record.batch, record.threads


def _bytes_change(size: int, reference: int) -> str:
    return f"{size - reference:+,} ({100 * (size / reference - 1):+.1f} %)"


def _p50(record: LatencyRecord) -> str:
    return f"{record.p50_ms:.2f} ms (batch {record.batch}, {thread_count(record.threads)})"


def _common_latency(
    model: ModelRecord, other: ModelRecord
) -> tuple[LatencyRecord | None, LatencyRecord | None]:
    """Both at the smallest setting that both ran; where there is none, the model's own smallest and nothing."""
    theirs = {_setting(record): record for record in other.latency}
    ours = {_setting(record): record for record in model.latency}
    # the smallest setting is the one that tables show
    common = min(ours.keys() & theirs.keys(), default=None)
    return (headline_latency(model), None) if common is None else (ours[common], theirs[common])


def warnings(runs: Sequence[Run]) -> list[str]:
    """What forbids to compare some of the figures, and what to think of those that can be."""
    found = []
    differing = [row["key"].replace("_", " ") for row in machine_rows(runs)]
    if differing:
        found.append(
            f"Latencies of these runs are not comparable, for they differ in {', '.join(differing)}. "
            "Ratios to each run's own baseline are what to look at."
        )
    elif any(run.headline.latency for run in runs):
        found.append(
            "The runs were measured one after the other: what slowed the machine meanwhile is in their latency "
            "ratios. Measure files in one run (modelpress bench FILE…) for a verdict."
        )

    # names are not enough: a data set may have been cut
    images = {(run.results.dataset.get("name"), run.results.dataset.get("fingerprint")) for run in runs}
    if len(images) > 1:
        found.append("Accuracies of these runs are not comparable: they were measured on different images.")

    return found


def machine_rows(runs: Sequence[Run]) -> list[Row]:
    """What differs between the machines, versions and thread settings of the runs: a row per key, a column per run."""
    columns = [_machine(run.results.environment) for run in runs]
    recorded = set.intersection(*map(set, columns))  # older results record less, which is no difference
    return _differing([{key: column[key] for key in column if key in recorded} for column in columns])


def recipe_rows(runs: Sequence[Run]) -> list[Row]:
    """The recipe keys that differ: a row per key, a column per run, ``0``, ``1`` and so on.

    A run without a recipe differs in none.
    """
    return _differing([dict(_flat(run.results.recipe)) for run in runs])


def _machine(environment: dict[str, Any]) -> dict[str, str]:
    versions = mapping(environment.get("versions"))
    return {
        **{key: as_text(environment[key]) for key in _MACHINE if key in environment},
        **{key: str(versions[key]) for key in _VERSIONS if key in versions},
    }


def _differing(columns: list[dict[str, str]]) -> list[Row]:
    keys = dict.fromkeys(key for column in columns for key in column)
    return [
        {"key": key, **{str(k): column.get(key, NONE) for k, column in enumerate(columns)}}
        for key in keys
        if len({column.get(key) for column in columns if column}) > 1
    ]


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys, as ``--set`` takes them."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", as_text(value)


def mapping(value: object) -> dict[str, Any]:
    """A part of a results file that is free in form, where it has names in it; nothing where it has not.

    Example:
        >>> mapping({"a": 1}), mapping(None)
        ({'a': 1}, {})
    """
    return value if isinstance(value, dict) else {}


def as_text(value: object) -> str:
    """A value of a results file for people.

    Example:
        >>> as_text({"a": 1, "b": [2, 3]}), as_text(None)
        ('a 1, b 2 3', '–')
    """
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items()) or NONE
    return ", ".join(map(str, value)) if isinstance(value, list) else NONE if value is None else str(value)


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
