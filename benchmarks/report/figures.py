"""The figures of the report: which there are, what they say, and what is read to those who cannot see them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modelpress.benchmarks.records import LayerRecord, ModelRecord, Results
from modelpress.benchmarks.report import plots
from modelpress.benchmarks.report.tables import (
    headline_latency,
    latency_at,
    percent,
    thread_count,
    verdict_at,
)
from modelpress.export.errors import InputError

_MOST_LABELS, _LONGEST_LABEL = 8, 24
_MOST_HISTOGRAMS = 80
_MOST_SPARSITY_FIGURES = 4


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the page.

    Attributes:
        alt: What it shows, for those who cannot see it.
        key: What numbers in it stand for, in order from 1; empty where it has names.
    """

    title: str
    svg: str
    caption: str
    alt: str
    key: tuple[str, ...] = ()


def accuracy_against_size(models: Sequence[ModelRecord]) -> str:
    """A file of its own: top-1 of files against their bytes, each with its name; the first is the baseline.

    Raises:
        InputError: Fewer than two have an accuracy.
    """
    points = [
        plots.Point(model.name, model.size_bytes, model.top1, model.top1_interval)
        for model in models
        if model.top1 is not None
    ]
    if len(points) < 2:
        raise InputError(
            f"{len(points)} of the files have a top-1 accuracy; a figure needs two: measure them with --data-dir"
        )
    drawn = plots.accuracy_against(
        points, "bytes on disk (logarithmic)", logarithmic=True, width=8.0, height=4.8
    )
    return f'<?xml version="1.0" encoding="utf-8"?>\n{drawn}\n'


def trade_off_figures(results: Results) -> Iterator[ReportFigure]:
    """Accuracy against size and against latency, where two files or more have an accuracy."""
    models = [model for model in results.models if model.top1 is not None]
    if len(models) < 2:
        return

    names = [model.path for model in models]
    labels = _labels(names)
    key = () if labels[0] != "1" else tuple(names)

    points = [
        plots.Point(label, model.size_bytes, model.top1 or 0.0, model.top1_interval)
        for label, model in zip(labels, models, strict=True)
    ]
    yield ReportFigure(
        "Accuracy against size",
        plots.accuracy_against(points, "bytes on disk (logarithmic)", logarithmic=True),
        "Lines: 95 % interval of each accuracy alone; the paired test above is sharper. Left and up is better.",
        _listing(
            "Accuracy against file size",
            [(m.path, f"{percent(m.top1, digits=2)}, {m.size_bytes:,} bytes") for m in models],
        ),
        key,
    )

    against_latency = _accuracy_against_latency(results, models, labels)
    if against_latency:
        title, svg, caption, alt = against_latency
        yield ReportFigure(title, svg, caption + " Numbers as in accuracy against size." * bool(key), alt)


def _accuracy_against_latency(
    results: Results, models: Sequence[ModelRecord], labels: Sequence[str]
) -> tuple[str, str, str, str] | None:
    setting = headline_latency(results.models[0])
    latencies = [record for model in models if (record := latency_at(model, setting)) is not None]
    if setting is None or len(latencies) < len(models):
        return None

    where = f"batch {setting.batch}, {thread_count(setting.threads)}"
    verdicts = [verdict_at(model, setting) for model in models]

    # ratios within rounds are sharper than medians, but only if every file has one
    judged = all(
        v is not None or model is results.models[0] for v, model in zip(verdicts, models, strict=True)
    )
    points, values = [], []
    for label, model, latency, verdict in zip(labels, models, latencies, verdicts, strict=True):
        x = (1.0 if verdict is None else verdict.ratio) if judged else latency.p50_ms
        interval = verdict.ratio_interval if judged and verdict else None
        points.append(plots.Point(label, x, model.top1 or 0.0, model.top1_interval, interval))
        values.append((model.path, f"{percent(model.top1, digits=2)}, {x:.2f}{'x' if judged else ' ms'}"))

    label = f"latency ratio to the baseline, {where}" if judged else f"median latency, milliseconds, {where}"
    return (
        "Accuracy against latency",
        plots.accuracy_against(points, label, logarithmic=False),
        "Lines: 95 % intervals. Left and up is better.",
        _listing("Accuracy against latency", values),
    )


def _labels(names: Sequence[str]) -> list[str]:
    """Names where they are few and short, else numbers from 1."""
    if len(names) <= _MOST_LABELS and max(map(len, names)) <= _LONGEST_LABEL:
        return list(names)
    return [str(k) for k in range(1, len(names) + 1)]


def _listing(what: str, values: Sequence[tuple[str, str]]) -> str:
    return f"{what}. " + "; ".join(f"{name}: {value}" for name, value in values)


def size_figures(models: Sequence[ModelRecord], packed: ModelRecord) -> Iterator[ReportFigure]:
    """Whole files, and the weights of the artifact in every form."""
    if len(models) > 1:
        yield ReportFigure(
            "Files on disk",
            plots.file_sizes(list(models)),
            "Whole files; grey is the baseline.",
            _listing("Bytes of every file", [(model.path, f"{model.size_bytes:,}") for model in models]),
        )
    if packed.size is not None and packed.size.ladder:
        yield ReportFigure(
            "Size ladder",
            plots.size_ladder(packed.size.ladder),
            f"The quantized weights of {packed.path} in every form: bare arrays, encodings with scales and tables of "
            "each tensor's own, general compressors on the bare codes, and as this file stores them. Every bar was "
            "decoded again and compared bit for bit.",
            _listing("Bytes of the weights", [(name, f"{n:,}") for name, n in packed.size.ladder.items()]),
        )


def latency_figures(models: Sequence[ModelRecord]) -> Iterator[ReportFigure]:
    """Medians at the setting of the tables, and ratios at every setting."""
    setting = headline_latency(models[0])
    if setting is None:
        return

    where = f"batch {setting.batch}, {thread_count(setting.threads)}"
    yield ReportFigure(
        f"Latency, {where}",
        plots.latency_bars(list(models), setting.batch, setting.threads),
        "Median per image, written at the right; whiskers reach the 90th percentile. Grey is the baseline.",
        f"Median latency of every file at {where}; the figures are in the table of latencies",
    )

    if any(model.verdicts for model in models):
        yield ReportFigure(
            "Faster or slower than the baseline",
            plots.latency_ratios(list(models)),
            "Left of 1 is faster. Ratio of medians within rounds; lines are 95 % intervals over rounds.",
            "Latency ratio of every file at every setting; the figures are in the table of latencies",
        )


def sparsity_figures(models: Sequence[ModelRecord]) -> Iterator[ReportFigure]:
    """Zeros per layer; files whose layers have the same share one figure, files without zeros have none."""
    groups: dict[tuple[float, ...], list[ModelRecord]] = {}
    for model in models:
        if model.sparsity:
            groups.setdefault(tuple(layer.sparsity for layer in model.layers), []).append(model)

    # flavours of one artifact have the same zeros, and would draw the same figure
    for members in list(groups.values())[:_MOST_SPARSITY_FIGURES]:
        total = members[0].sparsity or 0.0
        yield ReportFigure(
            "Sparsity per layer",
            plots.sparsity_per_layer(members[0].layers, total),
            ", ".join(model.path for model in members),
            f"Share of zeros in each of {len(members[0].layers)} layers; {percent(total, digits=1)} in all",
        )


def training_figures(results: Results) -> Iterator[ReportFigure]:
    """Loss and accuracy over epochs, stage by stage."""
    for stage, recorded in results.training.items():
        epochs = [
            epoch for epoch in recorded if _is_number(epoch.get("epoch")) and _is_number(epoch.get("loss"))
        ]
        if epochs:
            yield ReportFigure(
                f"Training: {stage}",
                plots.training_curve(epochs, stage),
                "",
                f"Training loss over {len(epochs)} epochs, from {epochs[0]['loss']:.3f} to {epochs[-1]['loss']:.3f}",
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def histograms(model: ModelRecord) -> Iterator[ReportFigure]:
    """Weights of every layer with the codes that stand for them."""
    drawn = [layer for layer in model.layers if layer.bin_counts]
    for layer in drawn[:_MOST_HISTOGRAMS]:
        yield ReportFigure(
            layer.name.removesuffix(".weight"),
            plots.weight_histogram(layer),
            _layer_in_words(layer),
            f"Histogram of the nonzero weights of {layer.name}",
        )


def _layer_in_words(layer: LayerRecord) -> str:
    width = "floating point" if layer.bits is None else f"{layer.bits} bits"
    if layer.bits is not None and not layer.grid:
        width += ", a scale per channel"
    if not layer.sparsity:
        return f"{width}; none of {layer.weights:,} weights is 0"
    return f"{width}; {percent(layer.sparsity, digits=1)} of {layer.weights:,} weights are 0 and not drawn"
