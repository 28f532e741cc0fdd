"""What `modelpress bench` prints: files, what runs in integers, latencies, loading and, if asked for, a profile."""

from modelpress.benchmarks.records import ProfileRecord, Results
from modelpress.benchmarks.report.exit_tables import EXIT_HEADINGS, exit_rows, exits_summary
from modelpress.benchmarks.report.tables import (
    file_rows,
    latency_label,
    latency_rows,
    loading_row,
    metric_name,
    parity_row,
    profile_rows,
    table_headings,
)
from modelpress.toolkit.commands.console import answer_line, print_table

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
_NARROW_LATENCY = [
    {
        "path": "file",
        "batch": "batch",
        "threads": "threads",
        "p50": "p50",
        "p99": "p99",
        "throughput": "per s",
        "verdict": "ratio",
    },
    {
        "path": "file",
        "batch": "batch",
        "threads": "thr.",
        "p50": "p50",
        "throughput": "per s",
        "verdict": "ratio",
    },
]
_NARROW_FILES = {
    "path": "file",
    "bytes": "bytes",
    "ratio": "smaller",
    "sparsity": "zeros",
    "top1_alone": "top-1",
    "p50": "p50",
    "judgement": "latency",
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
_NARROW_PARITY = [
    {
        "candidate": "file",
        "reference": "compared with",
        "what": "in",
        "equal": "equal",
        "difference": "difference",
        "layer": "first layer",
    },
    {
        "candidate": "file",
        "reference": "compared with",
        "what": "in",
        "equal": "equal",
        "difference": "difference",
    },
]
_PROFILE = {"path": "file", "p50": "p50", "p90": "p90", "rate": "per second", "top1": "top-1"}


def show_bench(results: Results, *, wide: bool = False) -> None:
    """Tables on stdout."""
    show_files(results, wide=wide)
    _show_audits(results)

    if any(model.latency for model in results.models):
        title = "Latency: milliseconds per batch, ratio of medians to the first file with its 95 % interval"
        print_table(
            title, latency_rows(results), _LATENCY, narrow=_NARROW_LATENCY, text=("verdict",), wide=wide
        )
        print_table(
            "Loading: from the file to the first result, milliseconds, and memory beyond an empty process",
            ({"path": model.path, **loading_row(model)} for model in results.models),
            _LOADING,
            wide=wide,
        )
    if results.parity:
        print_table(
            "Parity: the same network?",
            map(parity_row, results.parity),
            _PARITY,
            narrow=_NARROW_PARITY,
            text=("reference", "what", "equal", "layer"),
            wide=wide,
        )
    for record in results.exits:
        print_table(f"Early exits of {record.path}", exit_rows(record), EXIT_HEADINGS, wide=wide)
        for line in exits_summary(record):
            answer_line(line)
    if results.profile is not None:
        _show_profile(results.profile)


def show_files(results: Results, *, wide: bool = False) -> None:
    """A line for every file."""
    headings = table_headings(results)
    rows = file_rows(results)
    for row, model in zip(rows, results.models, strict=True):
        test = model.paired or model.bootstrap
        row["paired"] = "–" if test is None else f"{test.p_value:.2g}"
    if any(model.paired or model.bootstrap for model in results.models):
        by_bootstrap = any(model.bootstrap for model in results.models)
        headings["paired"] = "bootstrap p" if by_bootstrap else "McNemar p"

    narrow, title = {**_NARROW_FILES, "top1_alone": metric_name(results)}, ""
    if results.profile is not None:  # its latencies have a table of their own
        headings = {key: title for key, title in headings.items() if key not in ("p50", "top1")}
        narrow = {key: name for key, name in narrow.items() if key in headings}
    elif not any(model.verdicts for model in results.models):
        narrow = {key: name for key, name in narrow.items() if key != "judgement"}
    if "p50" in narrow and any(model.latency for model in results.models):
        title = f"Latency: {latency_label(results)}"
    print_table(title, rows, headings, narrow=[narrow], wide=wide)


def _show_audits(results: Results) -> None:
    """What ONNX Runtime makes of each graph, once for all files of which it makes the same."""
    files: dict[tuple[str, ...], list[str]] = {}
    for model in results.models:
        if model.audit is not None:
            files.setdefault(tuple(model.audit.summary), []).append(model.path)
    for summary, names in files.items():
        answer_line(f"What ONNX Runtime runs of {', '.join(names)}:")
        for line in summary:
            answer_line(f"    {line}")


def _show_profile(profile: ProfileRecord) -> None:
    title = (
        f"{profile.name}, {profile.label}: {profile.n_samples} samples one at a time, {profile.threads} thread, "
        f"{profile.passes} passes ({profile.images})"
    )
    print_table(title, profile_rows(profile), _PROFILE)
