"""Results as one HTML file that needs no network, or as Markdown tables."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from modelpress.benchmarks.records import FusionAudit, LatencyRecord, ModelRecord, Results
from modelpress.benchmarks.report import comparison
from modelpress.benchmarks.report.comparison import Run, as_text, headline_model, mapping
from modelpress.benchmarks.report.early_exits import exits_view
from modelpress.benchmarks.report.figures import (
    accuracy_against_size,
    histograms,
    latency_figures,
    size_figures,
    sparsity_figures,
    trade_off_figures,
    training_figures,
)
from modelpress.benchmarks.report.tables import (
    NONE,
    Row,
    file_rows,
    headline_latency,
    latency_label,
    latency_rows,
    loading_row,
    markdown_table,
    obstacle_rows,
    operator_rows,
    parity_row,
    parity_summary,
    percent,
    profile_rows,
    size_rows,
    table_headings,
    verdict_at,
    verdict_text,
)
from modelpress.benchmarks.report.templates import page_template
from modelpress.export.files.atomic import write_atomically
from modelpress.export.files.kinds import check_ending
from modelpress.export.safe_text import for_markdown, for_terminal

__all__ = [
    "file_rows",
    "latency_rows",
    "markdown_table",
    "render_markdown",
    "render_report",
    "table_headings",
    "write_report",
]

_MOST_IN_TITLE = 3


def write_report(path: Path, results: Sequence[Results], names: Sequence[str] = ()) -> None:
    """Render one run, or several side by side: Markdown tables for ``.md``, else an HTML page.

    With ``.svg`` it is the figure of accuracy against size alone, of all files of all runs.

    Args:
        path: Written whole or not at all.
        results: At least one.
        names: What the runs are called, all different; numbers where left out.

    Raises:
        InputError: The name ends otherwise, the file cannot be written, or fewer than two files have an accuracy.
    """
    check_ending(path, "a report", (".html", ".htm", ".md", ".svg"))
    if path.suffix == ".svg":
        text = accuracy_against_size([model for run in results for model in run.models])
    else:
        text = (render_markdown if path.suffix == ".md" else render_report)(results, names)
    write_atomically(path, text.encode())


def render_markdown(results: Sequence[Results], names: Sequence[str] = ()) -> str:
    """The comparison of the runs where there are several, and one table of files per run."""
    runs = _runs(results, names)
    parts = [_markdown_run(run, named=len(runs) > 1) for run in runs]
    if len(runs) > 1:
        warnings = "".join(f"\n{for_markdown(warning)}\n" for warning in comparison.warnings(runs))
        table = markdown_table(comparison.comparison_rows(runs), comparison.HEADINGS)
        parts.insert(0, f"{len(runs)} runs beside {for_markdown(runs[0].name)}:\n\n{table}\n{warnings}")
    return "\n".join(parts)


def _markdown_run(run: Run, *, named: bool) -> str:
    table = markdown_table(file_rows(run.results), table_headings(run.results))
    versions = mapping(run.results.environment.get("versions"))
    where = f"{run.results.environment.get('cpu', '')}, onnxruntime {versions.get('onnxruntime', '')}"
    title = f"{f'{run.name}: ' * named}{_title(run.results)} ({where}):"
    return f"{for_markdown(title)}\n\n{table}\n"


def render_report(results: Sequence[Results], names: Sequence[str] = ()) -> str:
    """The page as text; the same results give the same page."""
    runs = _runs(results, names)
    several = len(runs) > 1
    views = [{"name": run.name if several else "", **_run_view(run.results)} for run in runs]
    page = page_template("report.html.j2").render(
        title=", ".join(run.name for run in runs) if several else views[0]["title"],
        comparison=_comparison_view(runs) if several else None,
        runs=views,
    )

    return page.lstrip()


def _runs(results: Sequence[Results], names: Sequence[str]) -> list[Run]:
    chosen = names or [f"run {k}" for k in range(1, len(results) + 1)]
    return [
        Run(for_terminal(name), Results.model_validate(_printable(result.model_dump())))
        for name, result in zip(chosen, results, strict=True)
    ]


def _printable(value: Any) -> Any:
    """A part of a results file without letters that no page and no figure can show."""
    if isinstance(value, str):
        return for_terminal(value, lines=True)
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list | tuple) else value


def _comparison_view(runs: Sequence[Run]) -> dict[str, Any]:
    columns = {"key": "key", **{str(k): run.name for k, run in enumerate(runs)}}
    return {
        "headings": comparison.HEADINGS,
        "rows": comparison.comparison_rows(runs),
        "warnings": comparison.warnings(runs),
        "columns": columns,
        "machine": comparison.machine_rows(runs),
        "recipe": comparison.recipe_rows(runs),
    }


def _run_view(results: Results) -> dict[str, Any]:
    packed = headline_model(results)
    return {
        "title": _title(results),
        "subtitle": " · ".join(_subtitle(results)),
        "about": packed.path,
        "cards": list(_cards(results, packed)),
        "notes": results.notes,
        "files": file_rows(results),
        "file_headings": _file_headings(results),
        "n_images": f"{results.models[0].n_images:,}" if results.models[0].n_images else "",
        "trade_offs": list(trade_off_figures(results)),
        "size_figures": list(size_figures(results.models, packed)),
        "size_rows": size_rows(packed.size, packed.size_bytes) if packed.size else [],
        "precision": _precision(results),
        "latency_figures": list(latency_figures(results.models)),
        "latency": list(latency_rows(results)),
        "loading": [
            {"path": model.path, **loading_row(model)}
            for model in results.models
            if model.session_ms is not None
        ],
        "exits": list(map(exits_view, results.exits)),
        "profile": _profile_view(results),
        "sparsity_figures": list(sparsity_figures(results.models)),
        "audits": list(_audit_views(results.models)),
        "parity": list(map(parity_row, results.parity)),
        "parity_summary": list(parity_summary(results.parity)),
        "fidelity": results.fidelity,
        "layers": list(_layer_rows(packed)),
        "layer_headings": _layer_headings(packed),
        "histograms": list(histograms(packed)),
        "training": list(training_figures(results)),
        "environment": _facts(results),
        "recipe": yaml.safe_dump(results.recipe, sort_keys=False) if results.recipe else "",
    }


def _title(results: Results) -> str:
    recipe = results.recipe
    wanted = {"model": "arch", "data": "dataset", "quantize": "bits"}
    arch, dataset, bits = (mapping(recipe.get(part)).get(key) for part, key in wanted.items())
    if None in (arch, dataset, bits):
        names = [model.path for model in results.models]
        if len(names) > _MOST_IN_TITLE:
            return f"Benchmark of {names[0]} and {len(names) - 1} other files"
        return f"Benchmark of {', '.join(names)}"

    model = headline_model(results)
    zeros = "" if model.sparsity is None else f"{100 * model.sparsity:.1f} % zeros, "
    return f"{arch} on {dataset}: {zeros}{_widths(model, bits)} weights"


def _widths(model: ModelRecord, asked_for: Any) -> str:
    """How wide its weights are, as an artifact says; a recipe may leave layers as they are, or let widths follow."""
    coded = {layer.bits for layer in model.layers if layer.bits is not None}
    if asked_for in coded or model.size is None:
        return f"{asked_for}-bit"
    if not coded:
        return "float"
    low, high = min(coded), max(coded)
    return f"{low}-bit" if low == high else f"{low}- to {high}-bit"


def _subtitle(results: Results) -> Iterator[str]:
    environment = results.environment
    yield from (str(environment[key]) for key in ("date", "cpu") if environment.get(key))
    if results.dataset:
        images = results.dataset.get("test_images")
        yield f"{results.dataset.get('name')}" + (
            f", {images:,} test images" if isinstance(images, int) else ""
        )


def _cards(results: Results, packed: ModelRecord) -> Iterator[Row]:
    baseline = results.models[0]
    yield {
        "label": "size",
        "value": f"{packed.size_bytes:,} B",
        "detail": f"{baseline.size_bytes / packed.size_bytes:.1f}x smaller than {baseline.size_bytes:,} B"
        if packed is not baseline
        else "on disk",
    }

    if packed.top1 is not None and baseline.top1 is not None:
        change = (
            f"{100 * (packed.top1 - baseline.top1):+.2f} points against {percent(baseline.top1, digits=2)}"
        )
        yield {
            "label": "top-1 accuracy",
            "value": percent(packed.top1, digits=2),
            "detail": change if packed is not baseline else f"of {packed.n_images:,} test images",
        }

    if packed.sparsity is not None:
        yield {
            "label": "weights that are 0",
            "value": percent(packed.sparsity, digits=1),
            "detail": f"of {sum(layer.weights for layer in packed.layers):,}",
        }

    yield from _latency_cards(results, packed)


def _latency_cards(results: Results, packed: ModelRecord) -> Iterator[Row]:
    latency, reference = headline_latency(packed), headline_latency(results.models[0])
    if latency is None or reference is None:
        return

    yield {
        "label": f"latency, batch {latency.batch}",
        "value": f"{latency.p50_ms:.2f} ms",
        "detail": _beside_baseline(results, packed, latency, reference),
    }
    judged = [(v, model) for model in results.models if (v := verdict_at(model, latency)) is not None]
    best, fastest = min(judged, key=lambda pair: pair[0].ratio, default=(None, packed))
    # only a verdict makes a claim; a ratio alone may be noise
    if best is not None and fastest is not packed and best.verdict == "faster":
        yield {"label": "fastest, latency", "value": f"{best.ratio:.2f}x", "detail": fastest.path}


def _beside_baseline(
    results: Results, packed: ModelRecord, latency: LatencyRecord, reference: LatencyRecord
) -> str:
    if packed is results.models[0]:
        return "median"

    verdict = verdict_at(packed, latency)
    if verdict is not None:
        return f"{verdict_text(verdict)}, against {reference.p50_ms:.2f} ms"
    if (latency.batch, latency.threads) != (reference.batch, reference.threads):
        return f"median; the baseline ran batch {reference.batch}"

    return f"{latency.p50_ms / reference.p50_ms:.2f}x of {reference.p50_ms:.2f} ms (medians)"


def _file_headings(results: Results) -> dict[str, str]:
    """Columns of the table of files, without those that nothing was measured for."""
    headings = {
        "path": "file",
        "bytes": "bytes",
        "ratio": "smaller by",
        "sparsity": "zeros",
        "top1": "top-1",
        "paired": "paired test",
        "verdict": "latency ratio",
        "p50": latency_label(results).replace("batch ", "batch\N{NO-BREAK SPACE}"),
        "load": "load + first call",
        "memory": "peak memory",
        "top5": "top-5",
    }
    # a column of dashes tells nothing
    rows = file_rows(results)

    return {
        key: title
        for key, title in headings.items()
        if key == "path" or any(row[key] != NONE for row in rows)
    }


def _profile_view(results: Results) -> dict[str, Any] | None:
    profile = results.profile
    if profile is None:
        return None

    return {
        "name": profile.name,
        "label": profile.label,
        "described": f"{profile.n_samples:,} samples, {profile.batch} at a time, {profile.threads} thread"
        f"{'s' * (profile.threads > 1)}, {profile.passes} passes; {profile.images}",
        "rows": profile_rows(profile),
    }


def _audit_views(models: Sequence[ModelRecord]) -> Iterator[dict[str, Any]]:
    """One view for all files of which the runtime makes the same."""
    groups: list[list[tuple[str, FusionAudit]]] = []
    for model in models:
        audit = model.audit
        if audit is None:
            continue

        same = (group for group in groups if _runs_alike(group[0][1], audit))
        group = next(same, None)
        if group is None:
            groups.append([(model.path, audit)])
        else:
            group.append((model.path, audit))

    for group in groups:
        first = group[0][1]
        yield {
            "files": [path for path, _ in group],
            "summary": first.summary,
            "obstacles": obstacle_rows(first),
            "operators": operator_rows([audit for _, audit in group]),
            "operator_headings": {
                "op": "operator",
                **{str(k): path for k, (path, _) in enumerate(group)},
                "optimised": "as it runs",
            },
        }


def _runs_alike(left: FusionAudit, right: FusionAudit) -> bool:
    return (
        left.summary == right.summary
        and left.optimised == right.optimised
        and obstacle_rows(left) == obstacle_rows(right)
    )


def _layer_headings(model: ModelRecord) -> Mapping[str, str]:
    """Columns of the layers; of an ONNX file those that it can tell."""
    headings = {"name": "layer", "shape": "shape", "sparsity": "zeros"}
    if model.size is None:
        return headings
    headings |= {"bits": "bits", "each": "bits per weight"}
    if any(layer.estimated_loss is not None for layer in model.layers):
        headings["loss"] = "estimated loss"
    parts = ("encoding", "bytes", "payload", "tables", "scales", "header")
    return headings | {name: name for name in parts}


def _layer_rows(model: ModelRecord) -> Iterator[Row]:
    for layer in model.layers:
        parts = {name: f"{layer.parts.get(name, 0):,}" for name in ("payload", "tables", "scales", "header")}
        yield {
            "name": layer.name.removesuffix(".weight"),
            "shape": " × ".join(map(str, layer.shape)),
            "sparsity": percent(layer.sparsity, digits=1),
            "bits": str(layer.bits or "float"),
            "encoding": layer.encoding or NONE,
            "bytes": NONE if layer.stored_bytes is None else f"{layer.stored_bytes:,}",
            "each": NONE if layer.bits_per_weight is None else f"{layer.bits_per_weight:.2f}",
            "loss": NONE if layer.estimated_loss is None else f"{layer.estimated_loss:.1e}",
            **parts,
        }


def _precision(results: Results) -> str:
    """What rounding scales and biases costs, in a sentence; empty where it was not judged."""
    precision = results.parameters.get("precision")
    accuracy = mapping(results.parameters.get("validation_top1"))
    fractions = {name: fraction for name, fraction in accuracy.items() if isinstance(fraction, int | float)}
    if precision is None or not fractions:
        return ""
    measured = ", ".join(f"{100 * fraction:.2f} % in {name}" for name, fraction in fractions.items())
    return f"Scales and biases are in {precision}; validation accuracy {measured}."


def _facts(results: Results) -> list[tuple[str, str]]:
    """Machine, versions and data, name by name."""
    facts = {**results.environment, **({"data set": results.dataset} if results.dataset else {})}
    return [(key.replace("_", " "), as_text(value)) for key, value in facts.items()]
