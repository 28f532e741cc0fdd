"""Accuracy against sparsity, and against bits, ours beside the published figures."""

from collections.abc import Callable, Iterable

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.plots import BLUE, GREEN, GREY, ORANGE, STYLE
from toolkit.studies.run_row import RowRecord

_KINDS = {"post-training": (ORANGE, "o", "not trained"), "reference": (BLUE, "s", "finetuned as published")}
_OWN = {"improved": (GREEN, "D", "our recipe")}


def accuracy_by_sparsity(records: Iterable[RowRecord]) -> Figure:
    """One panel, a marker per row; published figures as grey rings."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 4.8), layout="constrained")
        axes = figure.subplots()
        _draw(axes, list(records), lambda record: 100 * record.sparsity)
        axes.set_xlabel("zeros in the prunable layers, %")
        axes.set_ylabel("top-1 on the test images, %")
        axes.set_title("Pruning: accuracy against sparsity", loc="left", fontweight="bold")
    return figure


def accuracy_by_bits(records: Iterable[RowRecord]) -> Figure:
    """Two panels, dense and pruned networks; bits on the horizontal axis, as in the recipes."""
    rows = [record for record in records if record.study == "quantize"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.8), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, title, chosen in (
            (panels[0], "Quantization: dense network", [r for r in rows if r.sparsity < 0.5]),
            (panels[1], "Quantization: pruned network", [r for r in rows if r.sparsity >= 0.5]),
        ):
            _draw(axes, chosen, lambda record: float(record.recipe["quantize"]["bits"]))
            axes.set_xlabel("bits per weight")
            axes.set_xticks(range(2, 7))
            axes.set_xlim(1.6, 6.6)
            axes.set_title(title, loc="left", fontweight="bold")
        panels[0].set_ylabel("top-1 on the test images, %")
    return figure


def _draw(axes: Axes, records: list[RowRecord], place: Callable[[RowRecord], float]) -> None:
    published = [record for record in records if record.published is not None]
    axes.scatter(
        [place(record) for record in published],
        [record.published or 0.0 for record in published],
        s=110,
        facecolors="none",
        edgecolors=GREY,
        linewidths=1.5,
        label="published",
    )
    for kind, (colour, marker, label) in {**_KINDS, **_OWN}.items():
        rows = [record for record in records if record.kind == kind]
        if rows:
            axes.scatter(
                [place(record) for record in rows],
                [100 * record.top1 for record in rows],
                s=32,
                color=colour,
                marker=marker,
                label=label,
                zorder=3,
            )
    if records:
        axes.legend(loc="lower right")
