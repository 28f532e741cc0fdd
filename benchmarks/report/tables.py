"""Results as rows of text, ready to be printed, for the terminal, Markdown and the HTML page alike."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from modelpress.benchmarks.records import (
    FusionAudit,
    LatencyRecord,
    ModelRecord,
    NodeAudit,
    PairedTest,
    ParityStep,
    ProfileRecord,
    Results,
    SizeRecord,
    VerdictRecord,
)
from modelpress.export.safe_text import for_markdown

Row = dict[str, str]
NONE = "–"
_COLUMNS = {"path": "file", "bytes": "bytes", "ratio": "smaller", "sparsity": "zeros", "top1": "top-1"}
_SIGNIFICANT = 0.05


def markdown_table(rows: Iterable[Row], headings: dict[str, str]) -> str:
    """Rows as Markdown: `headings` maps the keys of each row to column titles; the first column is text.

    Example:
        >>> print(markdown_table([{"a": "x|y", "b": "1"}], {"a": "name", "b": "number"}))
        | name | number |
        | --- | ---: |
        | x\\|y | 1 |
    """
    # numbers align right, names left
    rule = ["---", *["---:"] * (len(headings) - 1)]
    cells = [[row[key] for key in headings] for row in rows]
    title, *lines = (map(for_markdown, line) for line in (headings.values(), *cells))
    return "\n".join(f"| {' | '.join(line)} |" for line in (title, rule, *lines))


def thread_count(threads: int) -> str:
    """In words.

    Example:
        >>> thread_count(1), thread_count(4)
        ('1 thread', '4 threads')
    """
    return f"{threads} thread{'s' * (threads > 1)}"


def headline_latency(model: ModelRecord) -> LatencyRecord | None:
    """The setting that tables show: smallest batch, fewest threads."""
    return min(model.latency, key=lambda record: (record.batch, record.threads), default=None)


def latency_at(model: ModelRecord, setting: LatencyRecord | None) -> LatencyRecord | None:
    """What a model took at the batch size and thread count of another record; None where it did not run that."""
    if setting is None:
        return None
    wanted = (setting.batch, setting.threads)
    return next((record for record in model.latency if (record.batch, record.threads) == wanted), None)


def latency_label(results: Results) -> str:
    """What the latency column of `file_rows` holds."""
    record = headline_latency(results.models[0])
    return f"p50, batch {record.batch}, {thread_count(record.threads)}" if record else "p50"


def table_headings(results: Results) -> dict[str, str]:
    """The keys of `file_rows` that short tables show, with their column titles; the verdict where there is one."""
    judged = {"verdict": "latency ratio"} if any(model.verdicts for model in results.models) else {}
    return {**_COLUMNS, "top1": metric_name(results), "p50": latency_label(results), **judged}


def metric_name(results: Results) -> str:
    """What the column `top1` of `file_rows` holds: the metric of the task."""
    return next((model.metric.name for model in results.models if model.metric is not None), _COLUMNS["top1"])


def file_rows(results: Results) -> list[Row]:
    """The table of files; the first file is the baseline, and all latencies are at its smallest setting."""
    baseline = results.models[0]
    return [_file_row(model, baseline) for model in results.models]


def _file_row(model: ModelRecord, baseline: ModelRecord) -> Row:
    latency = latency_at(model, headline_latency(baseline))
    verdict = None if latency is None else verdict_at(model, latency)

    return {
        "path": model.path,
        "bytes": f"{model.size_bytes:,}",
        "ratio": f"{baseline.size_bytes / model.size_bytes:.1f}x",
        "sparsity": percent(model.sparsity, digits=2),
        **_figure(model),
        "top5": with_interval(model.top5, model.top5_interval),
        **(_paired(model.paired) if model.bootstrap is None else _bootstrapped(model)),
        "p50": NONE if latency is None else f"{latency.p50_ms:.2f} ms",
        "p99": NONE if latency is None else f"{latency.p99_ms:.2f} ms",
        **_judgement(verdict),
        **loading_row(model),
    }


def _figure(model: ModelRecord) -> Row:
    """Top-1 or the metric of the task, with its interval and alone."""
    metric = model.metric
    if metric is None:
        return {
            "top1": with_interval(model.top1, model.top1_interval),
            "top1_alone": percent(model.top1, digits=2),
        }
    if metric.fraction:
        return {
            "top1": with_interval(metric.value, metric.interval),
            "top1_alone": percent(metric.value, digits=2),
        }
    low, high = metric.interval
    return {"top1": f"{metric.value:.4g} [{low:.4g}, {high:.4g}]", "top1_alone": f"{metric.value:.4g}"}


def _judgement(verdict: VerdictRecord | None) -> Row:
    """In one text, and in its parts."""
    if verdict is None:
        return {"verdict": NONE, "judgement": "", "judged_ratio": ""}
    return {
        "verdict": verdict_text(verdict),
        "judgement": verdict.verdict,
        "judged_ratio": ratio_text(verdict),
    }


def percent(fraction: float | None, *, digits: int) -> str:
    """A fraction in percent; a dash for None.

    Example:
        >>> percent(0.69338, digits=1), percent(None, digits=1)
        ('69.3 %', '–')
    """
    return NONE if fraction is None else f"{100 * fraction:.{digits}f} %"


def with_interval(fraction: float | None, interval: tuple[float, float] | None) -> str:
    """A fraction in percent with half the width of its interval.

    Example:
        >>> with_interval(0.9, (0.88, 0.91))
        '90.00 ± 1.50 %'
    """
    if fraction is None or interval is None:
        return NONE
    low, high = interval
    return f"{100 * fraction:.2f} ± {50 * (high - low):.2f} %"


def _paired(test: PairedTest | None) -> Row:
    """Whether McNemar's test shows a difference, and what it counted."""
    if test is None:
        return {"paired": NONE, "paired_counts": ""}
    # which of the two it would be; shown only if the difference is more than chance
    direction = "worse" if test.n_only_baseline > test.n_only_this else "better"
    shown = direction if test.p_value < _SIGNIFICANT else "same"
    counts = f"−{test.n_only_baseline:,} +{test.n_only_this:,}, p = {_p_value(test.p_value)}"
    return {"paired": shown, "paired_counts": counts}


def _bootstrapped(model: ModelRecord) -> Row:
    """Whether the bootstrap shows a difference, and how large it is."""
    test, metric = model.bootstrap, model.metric
    assert test is not None  # asked by the caller
    assert metric is not None  # what was compared
    worse = (test.difference > 0) == metric.lower_is_better
    shown = ("worse" if worse else "better") if test.p_value < _SIGNIFICANT else "same"
    scale, unit = (100, " points") if metric.fraction else (1, "")
    low, high = (scale * bound for bound in test.interval)
    counts = f"{scale * test.difference:+.3g}{unit} [{low:+.3g}, {high:+.3g}], p = {_p_value(test.p_value)}"
    return {"paired": shown, "paired_counts": counts}


def _p_value(p: float) -> str:
    return "1" if p >= 1 else f"{p:.2f}" if p >= 0.01 else f"{p:.1e}"


def ratio_text(verdict: VerdictRecord) -> str:
    """The ratio with its interval, where it has one."""
    if verdict.ratio_interval is None:
        return f"{verdict.ratio:.2f}"
    low, high = verdict.ratio_interval
    return f"{verdict.ratio:.2f} [{low:.2f}, {high:.2f}]"


def verdict_text(verdict: VerdictRecord) -> str:
    """Ratio, interval and verdict."""
    return f"{ratio_text(verdict)} {verdict.verdict}"


def verdict_at(model: ModelRecord, latency: LatencyRecord) -> VerdictRecord | None:
    """The verdict at one setting; None for the baseline, and where it did not run that."""
    setting = (latency.batch, latency.threads)
    return next((verdict for verdict in model.verdicts if (verdict.batch, verdict.threads) == setting), None)


def latency_rows(results: Results) -> Iterator[Row]:
    """One row per file, batch size and thread count, milliseconds; dashes for what was not recorded."""
    for model in results.models:
        for record in model.latency:
            verdict = verdict_at(model, record)
            rate = record.images_per_second

            yield {
                "path": model.path,
                "batch": str(record.batch),
                "threads": str(record.threads),
                "min": f"{record.min_ms:.3f}",
                "p50": f"{record.p50_ms:.3f}",
                "p90": f"{record.p90_ms:.3f}",
                "p95": milliseconds(record.p95_ms, digits=3),
                "p99": f"{record.p99_ms:.3f}",
                "mean": _mean(record),
                "throughput": NONE if rate is None else f"{rate:,.0f}",
                "samples": f"{record.samples:,}",
                **_judgement(verdict),
            }


def _mean(record: LatencyRecord) -> str:
    if record.mean_ms is None or record.mean_interval_ms is None:
        return milliseconds(record.mean_ms, digits=3)
    low, high = record.mean_interval_ms
    return f"{record.mean_ms:.3f} ± {(high - low) / 2:.3f}"


def milliseconds(value: float | None, *, digits: int) -> str:
    """A number without its unit; a dash for None."""
    return NONE if value is None else f"{value:.{digits}f}"


def loading_row(model: ModelRecord) -> Row:
    """From the file to the first result, and the memory it takes; units where they are not all milliseconds."""
    memory, times = model.peak_memory_bytes, (model.session_ms, model.first_inference_ms)
    together = None if None in times else sum(time for time in times if time is not None)

    return {
        "session": milliseconds(model.session_ms, digits=2),
        "first": milliseconds(model.first_inference_ms, digits=2),
        "load": NONE if together is None else f"{together:.1f} ms",
        "load_ratio": NONE if model.session_ratio is None else f"{model.session_ratio:.2f}x",
        "memory": NONE if memory is None else f"{memory / 1e6:.1f} MB",
    }


def parity_row(step: ParityStep) -> Row:
    """One link of the chain; whether it holds in words."""
    compared = step.n_compared > 0
    return {
        "candidate": step.candidate,
        "reference": step.reference,
        "what": step.what,
        "compared": f"{step.n_compared:,}" if compared else NONE,
        "equal": ("yes" if step.equal else "no") if compared else "not comparable",
        "difference": NONE if step.largest_difference is None else f"{step.largest_difference:.1e}",
        "labels": percent(step.label_agreement, digits=2),
        "layer": step.first_difference or NONE,
        "detail": step.detail,
    }


def parity_summary(steps: Sequence[ParityStep]) -> Iterator[str]:
    """One sentence for everything that was compared: how much of it is equal, and what is not."""
    for what in dict.fromkeys(step.what for step in steps):
        compared = [step for step in steps if step.what == what and step.n_compared]
        missing = sum(step.what == what for step in steps) - len(compared)
        differing = [f"{step.candidate} from {step.reference}" for step in compared if not step.equal]
        parts = [f"{what}: {len(compared) - len(differing)} of {len(compared)} comparisons equal"]
        if differing:
            parts.append(f"different are {', '.join(differing)}")

        if missing:
            parts.append(f"{missing} not comparable")

        yield "; ".join(parts)


def profile_rows(profile: ProfileRecord) -> list[Row]:
    """One row per file of a benchmark profile."""
    return [
        {
            "path": entry.path,
            "p50": f"{entry.p50_ms:.3f} ms",
            "p90": f"{entry.p90_ms:.3f} ms",
            "rate": f"{entry.inferences_per_second:,.0f}",
            "top1": with_interval(entry.top1, entry.top1_interval),
        }
        for entry in profile.models
    ]


def operator_rows(audits: Sequence[FusionAudit]) -> list[Row]:
    """How many nodes of every operator there are in files (``0``, ``1`` and so on) and after optimisation.

    The optimised graphs of all of them are the same.
    """
    optimised = audits[0].optimised
    names = dict.fromkeys([*(op for audit in audits for op in audit.emitted), *optimised])

    return [
        {
            "op": op,
            **{str(k): _count(audit.emitted, op) for k, audit in enumerate(audits)},
            "optimised": _count(optimised, op),
        }
        for op in names
    ]


def _count(counts: dict[str, int], op: str) -> str:
    return f"{counts[op]:,}" if op in counts else NONE


def obstacle_rows(audit: FusionAudit) -> list[Row]:
    """What the audit has to say about single nodes; those of which it says the same in one row."""
    # a hundred nodes with the same trouble are one piece of advice
    groups: defaultdict[tuple[str, str, str, str], list[NodeAudit]] = defaultdict(list)
    for node in audit.nodes:
        if node.reason:
            groups[node.op, node.runs_as, node.reason, node.remedy].append(node)

    return [
        {
            "nodes": ", ".join(node.node for node in nodes),
            "count": f"{len(nodes):,}",
            "op": op,
            "runs_as": runs_as,
            "reason": reason,
            "remedy": remedy or NONE,
        }
        for (op, runs_as, reason, remedy), nodes in groups.items()
    ]


def size_rows(size: SizeRecord, total: int) -> list[Row]:
    """Where the bytes of an artifact are; they add up to the whole file."""
    parts = {
        "weight codes (payload)": size.payload,
        "code tables": size.tables,
        "scales, offsets, folded batch norm factors": size.scales,
        "tensor headers": size.headers,
        "float tensors (biases, layers kept in float)": size.float_tensors,
        "graph": size.graph,
        "tensor directory": size.directory,
        "file and chunk headers": size.frame,
        "whole file": total,
    }
    return [
        {"part": part, "bytes": f"{value:,}", "share": percent(value / total, digits=1)}
        for part, value in parts.items()
    ]
