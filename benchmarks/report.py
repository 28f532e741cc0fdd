"""Results as one HTML file that needs no network."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import yaml

from benchmarks import plots
from benchmarks.records import LatencyRecord, ModelRecord, Results, SizeRecord
from export.atomic_file import write_atomically

_HIDDEN = "–"


_COLUMNS = {"path": "file", "bytes": "bytes", "ratio": "smaller", "sparsity": "zeros", "top1": "top-1"}


def write_report(path: Path, results: list[Results]) -> None:
    """Render one or several runs, one below the other: Markdown tables for ``.md``, else an HTML page."""
    render = render_markdown if path.suffix == ".md" else render_report
    write_atomically(path, render(results).encode())


def render_markdown(results: list[Results]) -> str:
    """One table of files per run, for a README."""
    return "\n".join(map(_markdown_table, results))


def markdown_table(rows: Iterable[dict[str, str]], headings: dict[str, str]) -> str:
    """Rows as Markdown: `headings` maps the keys of each row to column titles; the first column is text.

    Example:
        >>> print(markdown_table([{"a": "x", "b": "1"}], {"a": "name", "b": "number"}))
        | name | number |
        | --- | ---: |
        | x | 1 |
    """
    lines = [headings.values(), ["---", *["---:"] * (len(headings) - 1)]]
    lines += [[row[key] for key in headings] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_table(results: Results) -> str:
    table = markdown_table(file_rows(results), table_headings(results))
    versions = results.environment.get("versions", {})
    where = f"{results.environment.get('cpu', '')}, onnxruntime {versions.get('onnxruntime', '')}"
    return f"{_title(results)} ({where}):\n\n{table}\n"


def render_report(results: list[Results]) -> str:
    """The page as text; the same results give the same page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("benchmarks", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    runs = [_run_view(result) for result in results]
    return environment.get_template("report.html.j2").render(runs=runs, title=runs[0]["title"])


def headline_latency(model: ModelRecord) -> LatencyRecord | None:
    """The setting that tables show: smallest batch, fewest threads."""
    return min(model.latency, key=lambda record: (record.batch, record.threads), default=None)


def file_rows(results: Results) -> list[dict[str, str]]:
    """The table of files, ready to print; the first file is the baseline."""
    baseline = results.models[0]
    return [_file_row(model, baseline) for model in results.models]


def table_headings(results: Results) -> dict[str, str]:
    """The keys of `file_rows` that short tables show, with their column titles."""
    return {**_COLUMNS, "p50": latency_label(results)}


def latency_label(results: Results) -> str:
    """What the latency column of `file_rows` holds."""
    record = headline_latency(results.models[0])
    return (
        f"p50, batch {record.batch}, {record.threads} thread{'s' * (record.threads > 1)}" if record else "p50"
    )


def _file_row(model: ModelRecord, baseline: ModelRecord) -> dict[str, str]:
    latency = headline_latency(model)
    return {
        "path": model.path,
        "bytes": f"{model.size_bytes:,}",
        "ratio": f"{baseline.size_bytes / model.size_bytes:.1f}x",
        "sparsity": _HIDDEN if model.sparsity is None else f"{100 * model.sparsity:.2f} %",
        "top1": _accuracy(model),
        "p50": _HIDDEN if latency is None else f"{latency.p50_ms:.2f} ms",
        "p99": _HIDDEN if latency is None else f"{latency.p99_ms:.2f} ms",
    }


def _accuracy(model: ModelRecord) -> str:
    """Accuracy with half the width of its 95 % interval."""
    if model.top1 is None or model.top1_interval is None:
        return _HIDDEN
    low, high = model.top1_interval
    return f"{100 * model.top1:.2f} ± {50 * (high - low):.2f} %"


def _run_view(results: Results) -> dict[str, Any]:
    baseline, packed = results.models[0], _packed(results)
    images = f"{baseline.n_images:,}" if baseline.n_images else ""
    return {
        "title": _title(results),
        "subtitle": f"{results.environment.get('date', '')} · {results.environment.get('cpu', '')}",
        "cards": list(_cards(baseline, packed)),
        "files": file_rows(results),
        "latency_label": latency_label(results),
        "n_images": images,
        "figures": list(_figures(results, packed)),
        "size_rows": _size_rows(packed.size, packed.size_bytes) if packed.size else [],
        "precision": _precision(results),
        "fidelity": results.fidelity,
        "layers": packed.layers if packed.size else [],
        "histograms": [
            {"name": layer.name, "svg": plots.weight_histogram(layer)}
            for layer in packed.layers
            if layer.bin_counts
        ],
        "latency": list(_latency_rows(results)),
        "environment": [(key, _plain(value)) for key, value in results.environment.items()],
        "recipe": yaml.safe_dump(results.recipe, sort_keys=False) if results.recipe else "",
    }


def _packed(results: Results) -> ModelRecord:
    """The model the page is about: the first artifact, or else the last file."""
    return next((model for model in results.models if model.format == "press"), results.models[-1])


def _title(results: Results) -> str:
    if not results.recipe:
        return "Benchmark of " + ", ".join(model.path for model in results.models)
    recipe, sparsity = results.recipe, _packed(results).sparsity
    zeros = "" if sparsity is None else f"{100 * sparsity:.1f} % zeros, "
    return f"{recipe['model']['arch']} on {recipe['data']['dataset']}: {zeros}{recipe['quantize']['bits']}-bit weights"


def _cards(baseline: ModelRecord, packed: ModelRecord) -> Iterator[dict[str, str]]:
    yield {
        "label": "size",
        "value": f"{packed.size_bytes:,} B",
        "detail": f"{baseline.size_bytes / packed.size_bytes:.1f}x smaller than {baseline.size_bytes:,} B",
    }
    if packed.top1 is not None and baseline.top1 is not None:
        yield {
            "label": "top-1 accuracy",
            "value": f"{100 * packed.top1:.2f} %",
            "detail": f"{100 * (packed.top1 - baseline.top1):+.2f} points against {100 * baseline.top1:.2f} %",
        }
    if packed.sparsity is not None:
        yield {
            "label": "weights that are 0",
            "value": f"{100 * packed.sparsity:.1f} %",
            "detail": f"of {sum(layer.weights for layer in packed.layers):,}",
        }
    latency, reference = headline_latency(packed), headline_latency(baseline)
    if latency is not None and reference is not None:
        yield {
            "label": f"latency, batch {latency.batch}",
            "value": f"{latency.p50_ms:.2f} ms",
            "detail": f"{latency.p50_ms / reference.p50_ms:.2f}x of {reference.p50_ms:.2f} ms (medians)",
        }


def _figures(results: Results, packed: ModelRecord) -> Iterator[dict[str, str]]:
    if packed.size is not None and packed.size.ladder:
        yield {
            "title": "Size ladder",
            "svg": plots.size_ladder(packed.size.ladder),
            "caption": "The quantized weights in every form: bare arrays, encodings with scales and tables of each "
            "tensor's own, general compressors on the bare codes, and as this file stores them. Every bar was decoded "
            "again and compared bit for bit.",
        }
    if packed.sparsity is not None:
        yield {
            "title": "Sparsity per layer",
            "svg": plots.sparsity_per_layer(packed.layers, packed.sparsity),
            "caption": packed.path,
        }
    if all(model.latency for model in results.models):
        yield {
            "title": "Latency",
            "svg": plots.latency_bars(results.models),
            "caption": "Median per image; whiskers reach the 90th percentile.",
        }
    for stage, epochs in results.training.items():
        if epochs:
            yield {"title": f"Training: {stage}", "svg": plots.training_curve(epochs, stage), "caption": ""}


def _precision(results: Results) -> str:
    """What rounding scales and biases costs, in a sentence; empty where it was not judged."""
    accuracy = results.parameters.get("validation_top1", {})
    if not accuracy:
        return ""
    measured = ", ".join(f"{100 * fraction:.2f} % in {name}" for name, fraction in accuracy.items())
    return f"Scales and biases are in {results.parameters['precision']}; validation accuracy {measured}."


def _size_rows(size: SizeRecord, total: int) -> list[dict[str, str]]:
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
        {"part": part, "bytes": f"{value:,}", "share": f"{100 * value / total:.1f} %"}
        for part, value in parts.items()
    ]


def _latency_rows(results: Results) -> Iterator[dict[str, str]]:
    for model in results.models:
        for record in model.latency:
            yield {
                "path": model.path,
                "batch": str(record.batch),
                "threads": str(record.threads),
                "min": f"{record.min_ms:.3f}",
                "p50": f"{record.p50_ms:.3f}",
                "p90": f"{record.p90_ms:.3f}",
                "p99": f"{record.p99_ms:.3f}",
                "samples": f"{record.samples:,}",
            }


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
