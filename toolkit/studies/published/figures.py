"""Accuracy against sparsity, against bits (ours beside the published figures), and against bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modelpress.benchmarks.report.plots import BLUE, GREEN, GREY, ORANGE, RED, STYLE
from modelpress.toolkit.studies.published.rows import ROWS
from modelpress.toolkit.studies.published.run_row import RowRecord

_TEXT = "#333A44"
_CLOSE_UP = 7.0  # points of accuracy below the best row
_APART = 0.12  # bits between the markers of neighbouring series


@dataclass(frozen=True)
class _Series:
    """Rows that share a way of working."""

    label: str
    colour: str
    marker: str


_PLAIN = _Series("not trained", ORANGE, "o")
_SYMMETRIC = _Series("not trained, symmetric", "#CC79A7", "v")
_LEAST_ERROR = _Series("not trained, our grids", "#56B4E9", "^")
_FINETUNED = _Series("finetuned as published", BLUE, "s")
_OURS = _Series("our recipe", GREEN, "D")
_OURS_SPARSER = _Series("our recipe, 90 % removed", RED, "P")
_FRONTIER = {
    "priced": _Series("a price per byte", GREEN, "D"),
    "matched": _Series("a price per byte, as large as a file of fixed zeros", GREEN, "o"),
    "fixed": _Series("fixed zeros and width", BLUE, "s"),
}
_ALL = (_PLAIN, _SYMMETRIC, _LEAST_ERROR, _FINETUNED, _OURS, _OURS_SPARSER)  # from left to right


def accuracy_by_sparsity(records: Sequence[RowRecord]) -> Figure:
    """Every row against its zeros; and the trained ones by name, close up."""
    trained = [record for record in records if record.kind != "post-training"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11 if trained else 6.5, 4.8), layout="constrained")
        left, *right = figure.subplots(1, 1 + bool(trained), squeeze=False)[0]

        for record in records:
            _mark(left, record, (100 * record.sparsity, 100 * record.top1))
            if record.published is not None:
                _ring(left, (100 * record.sparsity, record.published))

        left.set_xlabel("zeros in the prunable layers, %")
        left.set_ylabel("top-1 on the test images, %")
        left.set_title("Pruning: all rows", loc="left", fontweight="bold")

        for axes in right:
            _draw_named(axes, trained)
            axes.set_title("Trained rows, close up", loc="left", fontweight="bold")
        _legend(figure)

    return figure


def accuracy_by_bytes(records: Sequence[RowRecord]) -> Figure:
    """Every compressed file against its size, with its interval; the dense network as a line."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.8), layout="constrained")
        axes = figure.subplots()
        for kind, series in _FRONTIER.items():
            chosen = [record for record in records if record.kind == kind]
            sizes = [record.size_bytes / 1000 for record in chosen]
            accuracies = [100 * record.top1 for record in chosen]
            ends = [[100 * abs(record.top1 - end) for end in record.top1_interval] for record in chosen]
            if chosen:
                axes.errorbar(
                    *(sizes, accuracies, list(zip(*ends, strict=True))),
                    color=series.colour,
                    fmt=series.marker,
                    elinewidth=1,
                    label=series.label,
                )
        for record in records:
            if record.kind == "post-training":
                dense = f"dense, {record.size_bytes:,} bytes"
                axes.axhline(100 * record.top1, color=GREY, linestyle="--", linewidth=1, label=dense)

        axes.set_xlabel("size of the .press file, kB")
        axes.set_ylabel("top-1 on the test images, %")
        axes.set_title("Accuracy against bytes, 95 % intervals", loc="left", fontweight="bold")
        if records:
            axes.legend(loc="lower right", frameon=False)
    return figure


def accuracy_by_bits(records: Sequence[RowRecord]) -> Figure:
    """A column for dense and one for pruned networks: close up above, the whole range below."""
    rows = [record for record in records if record.study == "quantize"]
    columns = {
        "Quantization: dense network": [record for record in rows if not _is_pruned(record)],
        "Quantization: pruned network": [record for record in rows if _is_pruned(record)],
    }
    shown = {title: chosen for title, chosen in columns.items() if chosen}

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.5 + 4.8 * max(1, len(shown)), 7.2), layout="constrained")
        panels = figure.subplots(
            2, max(1, len(shown)), sharex=True, sharey="row", squeeze=False, height_ratios=(1.25, 1)
        )
        for (close_up, whole), (title, chosen) in zip(panels.T, shown.items(), strict=False):
            for axes in (close_up, whole):
                _draw_by_bits(axes, chosen)
            close_up.set_title(title, loc="left", fontweight="bold")
            whole.set_xlabel("bits per weight")

        if rows:
            best = max(max(100 * record.top1, record.published or 0.0) for record in rows)
            panels[0, 0].set_ylim(best - _CLOSE_UP, best + 0.06 * _CLOSE_UP)
        panels[0, 0].set_ylabel(f"top-1, %: the best {_CLOSE_UP:g} points")
        panels[1, 0].set_ylabel("top-1, %: all rows")
        _legend(figure)

    return figure


def _draw_named(axes: Axes, records: list[RowRecord]) -> None:
    """A line of its own for every row, in the order of the study."""
    for line, record in enumerate(records):
        _mark(axes, record, (100 * record.top1, line))
        if record.published is not None and record.difference is not None:
            _ring(axes, (record.published, line))
            axes.annotate(
                f"{record.difference:+.2f}",
                (max(record.published, 100 * record.top1), line),
                xytext=(12, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                color=_TEXT,
            )

    places = [x for r in records for x in (100 * r.top1, r.published) if x is not None]
    room = max(0.5, max(places) - min(places))
    axes.set_xlim(min(places) - 0.15 * room, max(places) + 0.35 * room)  # on the right for the difference

    axes.set_ylim(len(records) - 0.5, -0.5)  # the first row on top
    axes.set_yticks(range(len(records)), [record.name for record in records])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("top-1 on the test images, %; beside it ours minus published")


def _draw_by_bits(axes: Axes, records: list[RowRecord]) -> None:
    """Series of the same width side by side, so that none hides another."""
    present = [series for series in _ALL if any(_series(record) == series for record in records)]
    for record in records:
        bits = record.recipe["quantize"]["bits"]
        x = bits + _APART * (present.index(_series(record)) - (len(present) - 1) / 2)
        _mark(axes, record, (x, 100 * record.top1))
        if record.published is not None:
            _ring(axes, (x, record.published))

    axes.set_xticks(range(2, 7))
    axes.set_xlim(1.5, 6.5)
    axes.grid(axis="x", visible=False)
    for between in range(3, 7):
        axes.axvline(between - 0.5, color=STYLE["grid.color"], linewidth=0.8, zorder=0)


def _mark(axes: Axes, record: RowRecord, place: tuple[float, float]) -> None:
    series = _series(record)
    axes.scatter(*place, s=32, color=series.colour, marker=series.marker, label=series.label, zorder=3)


def _ring(axes: Axes, place: tuple[float, float]) -> None:
    axes.scatter(
        *place, s=110, facecolors="none", edgecolors=GREY, linewidths=1.5, label="published", zorder=2
    )


def _legend(figure: Figure) -> None:
    """One entry per series below all panels."""
    found = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }

    labels = [label for label in ("published", *(series.label for series in _ALL)) if label in found]
    if labels:
        figure.legend(
            [found[label] for label in labels],
            labels,
            loc="outside lower center",
            ncols=min(int(figure.get_figwidth() / 2.6), len(labels)),
        )


def _series(record: RowRecord) -> _Series:
    if record.kind == "improved":
        return _OURS_SPARSER if record.recipe["prune"]["sparsity"] > 0.8 else _OURS
    if record.kind == "reference":
        return _FINETUNED

    grid = record.recipe["quantize"]
    if grid["symmetric"]:
        return _SYMMETRIC
    return _LEAST_ERROR if grid["range"] == "mse" else _PLAIN


def _is_pruned(record: RowRecord) -> bool:
    """By what was asked for: a coarse grid alone sets most weights to zero."""
    return record.recipe["prune"]["sparsity"] > 0 or ROWS[record.name].start is not None
