"""What `modelpress bench` prints: files, latencies, loading and, if asked for, a profile."""

from benchmarks.records import ModelRecord, ParityStep, ProfileRecord, Results
from benchmarks.report import file_rows, latency_rows, table_headings
from toolkit.console import print_table

_NONE = "–"
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
    "ratio": "both, ratio",
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
            row["paired"] = _NONE if model.paired is None else f"{model.paired.p_value:.2g}"
    if results.profile is not None:  # its latencies have a table of their own
        headings = {key: title for key, title in headings.items() if key not in ("p50", "top1")}
    print_table("", rows, headings)
    if any(model.latency for model in results.models):
        title = "Latency: milliseconds per batch, ratio of medians to the first file with its 95 % interval"
        print_table(title, latency_rows(results), _LATENCY)
        print_table(
            "Loading: from the file to the first result, milliseconds, and memory beyond an empty process",
            map(_loading_row, results.models),
            _LOADING,
        )
    if results.parity:
        print_table("Parity: the same network?", map(_parity_row, results.parity), _PARITY, text=_PARITY)
    if results.profile is not None:
        _show_profile(results.profile)


def _parity_row(step: ParityStep) -> dict[str, str]:
    compared = step.n_compared > 0
    return {
        "candidate": step.candidate,
        "reference": step.reference,
        "what": step.what,
        "compared": f"{step.n_compared:,}",
        "equal": ("yes" if step.equal else "no") if compared else "not comparable",
        "difference": _NONE if step.largest_difference is None else f"{step.largest_difference:.1e}",
        "layer": step.first_difference or _NONE,
    }


def _loading_row(model: ModelRecord) -> dict[str, str]:
    memory = model.peak_memory_bytes
    return {
        "path": model.path,
        "session": _milliseconds(model.session_ms),
        "first": _milliseconds(model.first_inference_ms),
        "ratio": _NONE if model.session_ratio is None else f"{model.session_ratio:.2f}",
        "memory": _NONE if memory is None else f"{memory / 1e6:.1f} MB",
    }


def _milliseconds(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}"


def _show_profile(profile: ProfileRecord) -> None:
    rows = [
        {
            "path": entry.path,
            "p50": f"{entry.p50_ms:.3f} ms",
            "p90": f"{entry.p90_ms:.3f} ms",
            "rate": f"{entry.inferences_per_second:,.0f}",
            "top1": _NONE if entry.top1 is None else f"{100 * entry.top1:.1f} %",
        }
        for entry in profile.models
    ]
    title = (
        f"{profile.name}, {profile.label}: {profile.n_samples} samples one at a time, {profile.threads} thread, "
        f"{profile.passes} passes ({profile.images})"
    )
    print_table(title, rows, _PROFILE)
