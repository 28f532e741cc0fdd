"""What `modelpress bench` prints: files, what runs in integers, latencies, loading and, if asked for, a profile."""

from modelpress.benchmarks.records import ProfileRecord, Results
from modelpress.benchmarks.report.tables import (
    file_rows,
    latency_rows,
    loading_row,
    parity_row,
    profile_rows,
    table_headings,
)
from modelpress.toolkit.commands.console import ANSWER, print_table

_LATENCY = {
    "path": "file",
    "batch": "batch",
    "threads": "threads",
    "min": "min",
    "p50": "p50",
    "p90": "p90",
    "p95": "p95",
    "p99": "p99",
    "mean": "mean",
    "throughput": "per s",
    "verdict": "ratio",
}
_LOADING = {
    "path": "file",
    "session": "session",
    "first": "first call",
    "load_ratio": "both, ratio",
    "memory": "memory",
}
_PARITY = {
    "candidate": "file",
    "reference": "compared with",
    "what": "in",
    "compared": "of",
    "equal": "equal",
    "difference": "largest difference",
    "layer": "first layer that differs",
}
_PROFILE = {"path": "file", "p50": "p50", "p90": "p90", "rate": "per second", "top1": "top-1"}


def show_bench(results: Results) -> None:
    """Tables on stderr."""
    headings = table_headings(results)
    rows = file_rows(results)
    if any(model.paired for model in results.models):
        headings["paired"] = "McNemar p"
        for row, model in zip(rows, results.models, strict=True):
            row["paired"] = "–" if model.paired is None else f"{model.paired.p_value:.2g}"
    if results.profile is not None:  # its latencies have a table of their own
        headings = {key: title for key, title in headings.items() if key not in ("p50", "top1")}
    print_table("", rows, headings)
    _show_audits(results)
    if any(model.latency for model in results.models):
        title = "Latency: milliseconds per batch, ratio of medians to the first file with its 95 % interval"
        print_table(title, latency_rows(results), _LATENCY)
        print_table(
            "Loading: from the file to the first result, milliseconds, and memory beyond an empty process",
            ({"path": model.path, **loading_row(model)} for model in results.models),
            _LOADING,
        )
    if results.parity:
        print_table("Parity: the same network?", map(parity_row, results.parity), _PARITY, text=_PARITY)
    if results.profile is not None:
        _show_profile(results.profile)


def _show_audits(results: Results) -> None:
    """What ONNX Runtime makes of each graph, once for all files of which it makes the same."""
    files: dict[tuple[str, ...], list[str]] = {}
    for model in results.models:
        if model.audit is not None:
            files.setdefault(tuple(model.audit.summary), []).append(model.path)
    for summary, names in files.items():
        ANSWER.print(f"What ONNX Runtime runs of {', '.join(names)}:", markup=False, highlight=False)
        for line in summary:
            ANSWER.print(f"    {line}", markup=False, highlight=False)


def _show_profile(profile: ProfileRecord) -> None:
    title = (
        f"{profile.name}, {profile.label}: {profile.n_samples} samples one at a time, {profile.threads} thread, "
        f"{profile.passes} passes ({profile.images})"
    )
    print_table(title, profile_rows(profile), _PROFILE)
