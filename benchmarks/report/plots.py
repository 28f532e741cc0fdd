"""Figures of the report, as SVG text that scales; colours that colour-blind readers can tell apart."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import inf
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogFormatter, MaxNLocator, NullLocator

from modelpress.benchmarks.records import LayerRecord, ModelRecord
from modelpress.benchmarks.report.label_placement import place_labels

# Okabe and Ito 2008, "Color Universal Design"
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8A8F98"
SERIES = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9")
INK = "#333A44"
MARKERS = "os^Dv<>P"
_MOST_BARS = 64  # above that, one outline
# first digits that have a label on a logarithmic axis whose ends are less than so far apart
_LABELLED = ((2.5, "123456789"), (30.0, "125"), (300.0, "13"), (inf, "1"))
_OF_LADDERS = 5.2  # inches, for the forms' names in full: they are ours, and none is longer than half of that
_OF_HISTOGRAMS = {"left": 0.235, "right": 0.97, "bottom": 0.2, "top": 0.82}  # room for counts of six digits
Interval = tuple[float, float]
STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.parse_math": False,  # names may hold dollar signs
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9AA0A8",
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": "#E5E8EC",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "modelpress",
}


def size_ladder(rungs: dict[str, int]) -> str:
    """Horizontal bars, largest first, bytes written at the ends (logarithmic axis); what is stored stands out."""
    names = sorted(rungs, key=lambda name: rungs[name], reverse=True)
    stored = [name in ("as stored", "whole file") for name in names]
    colours = [BLUE if own else GREY for own in stored]
    return _bytes(names, [rungs[name] for name in names], colours, width=_OF_LADDERS)


def file_sizes(models: list[ModelRecord]) -> str:
    """One bar per file in the order given, whole files on disk; the baseline is grey."""
    colours = [GREY, *[BLUE] * (len(models) - 1)]
    names = [shortened(model.path) for model in models]
    return _bytes(names, [model.size_bytes for model in models], colours)


def _bytes(names: list[str], values: list[int], colours: list[str], *, width: float = 4.3) -> str:
    def draw(axes: Axes) -> None:
        _name_rows(axes, names)
        axes.barh(range(len(names)), values, color=colours, height=0.65)
        _logarithmic(axes)
        axes.set_xlim(min(values) / 3, max(values) * 6)
        axes.set_xlabel("bytes (logarithmic)")
        for row, value in enumerate(values):
            axes.text(value * 1.1, row, f"{value:,}", va="center", fontsize=9, color=INK)

    return svg(draw, width=width, height=0.9 + 0.34 * len(names))


class _WholeNumbers(LogFormatter):
    """Which ticks have a label is decided as usual; the labels are plain text, since no figure reads mathematics."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        if not super().__call__(x, pos):
            return ""
        # more labels of a decade than these would touch
        assert self.axis is not None  # a formatter that formats has one
        low, high = sorted(self.axis.get_view_interval())
        digits = next(digits for most, digits in _LABELLED if high < most * low)
        return f"{x:,.0f}" if f"{x:.0e}"[0] in digits else ""


def _logarithmic(axes: Axes) -> None:
    """The x axis, for bytes."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(_WholeNumbers())
    axes.xaxis.set_minor_formatter(_WholeNumbers())


def _name_rows(axes: Axes, names: list[str]) -> None:
    """One row per name, from the top; names need not differ."""
    axes.set_yticks(range(len(names)), [plain_text(name) for name in names], fontsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


def sparsity_per_layer(layers: list[LayerRecord], total: float) -> str:
    """One bar per layer, in network order, and the total as a line."""

    def draw(axes: Axes) -> None:
        axes.bar(
            range(1, len(layers) + 1), [100 * layer.sparsity for layer in layers], color=BLUE, width=0.75
        )
        axes.axhline(
            100 * total, color=RED, linewidth=1.5, linestyle="--", label=f"all layers: {100 * total:.1f} %"
        )

        axes.set_ylim(0, 112)  # above 100 there is room for the legend
        axes.set_yticks(range(0, 101, 20))
        axes.set_xlabel("convolution or linear layer, in network order")
        axes.set_ylabel("weights that are exactly 0, %")
        axes.grid(axis="x", visible=False)
        axes.legend(loc="upper left")

    return svg(draw)


def latency_bars(models: list[ModelRecord], batch: int, threads: int) -> str:
    """Median latency per image at one setting, a bar for each file that ran it; whiskers reach p90."""
    found = [
        (model.path, record)
        for model in models
        for record in model.latency
        if (record.batch, record.threads) == (batch, threads)
    ]
    p50 = [record.p50_ms / batch for _, record in found]
    above = [(record.p90_ms - record.p50_ms) / batch for _, record in found]

    def draw(axes: Axes) -> None:
        _name_rows(axes, [shortened(path) for path, _ in found])
        colours = [GREY if path == models[0].path else BLUE for path, _ in found]
        rows = range(len(found))
        axes.barh(rows, p50, color=colours, height=0.6)
        axes.errorbar(
            p50, rows, xerr=[[0.0] * len(p50), above], fmt="none", ecolor=INK, elinewidth=1, capsize=2
        )

        axes.set_xlim(0, 1.3 * max(x + whisker for x, whisker in zip(p50, above, strict=True)))
        for row, x in enumerate(p50):
            axes.text(
                1, row, f"{x:#.3g}", transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=9
            )

        axes.set_xlabel("milliseconds per image")

    return svg(draw, height=0.9 + 0.34 * len(found))


def latency_ratios(models: list[ModelRecord]) -> str:
    """Latency beside the baseline's with its interval, every setting of every file (logarithmic axis)."""
    judged = [model for model in models if model.verdicts]
    settings = sorted({(v.batch, v.threads) for model in judged for v in model.verdicts})
    spread = min(0.2, 0.6 / max(len(settings) - 1, 1))

    def draw(axes: Axes) -> None:
        _name_rows(axes, [shortened(model.path) for model in judged])
        axes.axvline(1, color=INK, linewidth=1)
        for row in range(1, len(judged)):
            axes.axhline(row - 0.5, color="#E5E8EC", linewidth=0.8)

        for k, setting in enumerate(settings):
            points = [
                (row, verdict)
                for row, model in enumerate(judged)
                for verdict in model.verdicts
                if (verdict.batch, verdict.threads) == setting
            ]
            offset = (k - (len(settings) - 1) / 2) * spread

            _points_with_intervals(
                axes,
                [verdict.ratio for _, verdict in points],
                [row + offset for row, _ in points],
                x_intervals=[verdict.ratio_interval for _, verdict in points],
                colour=SERIES[k % len(SERIES)],
                marker=MARKERS[k % len(MARKERS)],
                label=f"batch {setting[0]}, {setting[1]} thread{'s' * (setting[1] > 1)}",
            )

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("latency ratio to the baseline")

        axes.figure.legend(loc="outside upper right", ncols=2, fontsize=8)

    rows = len(judged) * max(0.34, 0.13 * len(settings))
    return svg(draw, height=1.0 + 0.16 * ((len(settings) + 1) // 2) + rows)


def _points_with_intervals(
    axes: Axes,
    x: list[float],
    y: list[float],
    *,
    x_intervals: Sequence[Interval | None] = (),
    y_intervals: Sequence[Interval | None] = (),
    colour: str | Sequence[str],
    marker: str = "o",
    label: str | None = None,
) -> None:
    """Points, and thin lines over the intervals of those that have one."""
    lines: Any = {"color": "#9AA0A8", "linewidth": 1, "zorder": 2}
    for interval, height in zip(x_intervals, y, strict=False):
        if interval is not None:
            axes.plot(interval, (height, height), **lines)

    for interval, place in zip(y_intervals, x, strict=False):
        if interval is not None:
            axes.plot((place, place), interval, **lines)

    axes.scatter(x, y, s=26, c=colour, marker=marker, label=label, zorder=3)


@dataclass(frozen=True)
class Point:
    """A file in a plot of accuracy against something else.

    Attributes:
        label: Written beside it.
        x: What the accuracy is plotted against.
        top1: Fraction, with its interval.
    """

    label: str
    x: float
    top1: float
    top1_interval: Interval | None = None
    x_interval: Interval | None = None


def accuracy_against(
    points: list[Point], x_label: str, *, logarithmic: bool, width: float = 4.3, height: float = 3.6
) -> str:
    """Accuracy of every file against another figure, both with intervals; the first point is the baseline."""

    def draw(axes: Axes) -> None:
        x, y = [point.x for point in points], [100 * point.top1 for point in points]
        if logarithmic:
            _logarithmic(axes)

        _points_with_intervals(
            axes,
            x,
            y,
            x_intervals=[point.x_interval for point in points],
            y_intervals=[_in_percent(point.top1_interval) for point in points],
            colour=[GREY, *[BLUE] * (len(points) - 1)],
        )

        axes.set_xlabel(x_label)
        axes.set_ylabel("top-1 accuracy, %")
        axes.margins(0.22, 0.3)

        place_labels(axes, [plain_text(point.label) for point in points], list(zip(x, y, strict=True)))

    return svg(draw, width=width, height=height)


def _in_percent(interval: Interval | None) -> Interval | None:
    return None if interval is None else (100 * interval[0], 100 * interval[1])


def training_curve(epochs: list[dict[str, Any]], title: str) -> str:
    """Training loss, validation accuracy and, where a penalty acted, the share of zeros over epochs."""
    number = [epoch["epoch"] for epoch in epochs]

    def draw(axes: Axes) -> None:
        axes.plot(number, [epoch["loss"] for epoch in epochs], color=BLUE, marker="o", markersize=3)
        axes.set_xlabel(f"epoch of {title}")
        axes.set_ylabel("training loss, nats", color=BLUE)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        shares = {name: _percent(epochs, key) for name, key in _SHARES.items()}
        shares = {name: values for name, values in shares.items() if values}
        if not shares:
            return

        right = axes.twinx()
        right.spines["right"].set_visible(True)
        right.grid(visible=False)
        for (name, values), colour, mark in zip(shares.items(), (RED, GREEN), "s^", strict=False):
            right.plot(number, values, color=colour, marker=mark, markersize=3, linestyle="--", label=name)

        right.set_ylabel(f"{', '.join(shares)}, %", color=RED)
        if len(shares) > 1:
            right.figure.legend(loc="outside upper right", ncols=2, fontsize=8)

    return svg(draw)


_SHARES = {"validation accuracy": "validation_top1", "weights at 0": "sparsity"}


def _percent(epochs: list[dict[str, Any]], key: str) -> list[float]:
    """A share of every epoch in percent; empty where it was not measured."""
    values = [epoch.get(key) for epoch in epochs]
    return [100 * value for value in values if value is not None]


def plain_text(name: str) -> str:
    """A text as it stands: no mathematics between dollar signs, none hidden by an underscore, on one line."""
    return "\u200b" + " ".join(name.split()).replace("$", r"\$")


def shortened(name: str, most: int = 26) -> str:
    """A long name without its middle, of which the ends tell most.

    Example:
        >>> shortened("resnet20-cifar10-s70-w4-asymmetric.onnx", most=20)
        'resnet20-…etric.onnx'
    """
    if len(name) <= most:
        return name
    kept = most - 1
    return f"{name[: kept // 2]}…{name[-(kept - kept // 2) :]}"


def weight_histogram(layer: LayerRecord) -> str:
    """How often each code of the grid is used, codes above and weights below; a plain histogram for float layers.

    With a scale per channel a code has as many values as there are channels: codes alone are drawn.
    """

    def draw(axes: Axes) -> None:
        axes.set_xlabel("weight")

        if len(layer.grid) > 1:
            _draw_codes(axes, layer)
        elif layer.grid_counts:
            lowest = _lowest_code(layer)
            edges = [code + lowest - 0.5 for code in range(len(layer.grid_counts) + 1)]
            axes.stairs(layer.grid_counts, edges, fill=True, color=BLUE)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlabel("code (one scale per channel)")
        else:
            axes.stairs(layer.bin_counts, layer.bin_edges, fill=True, color=GREY)

        axes.set_ylabel("nonzero weights")

    return svg(draw, width=3.4, height=2.3, margins=_OF_HISTOGRAMS)


def _draw_codes(axes: Axes, layer: LayerRecord) -> None:
    """A bar per grid value, and an axis above with the code of each, or of some; odd numbers of codes are signed."""
    grid = layer.grid
    step = grid[1] - grid[0]
    if len(grid) <= _MOST_BARS:
        axes.bar(grid, layer.grid_counts, width=0.7 * step, color=BLUE)
    else:
        edges = [grid[0] - step / 2, *(value + step / 2 for value in grid)]
        axes.stairs(layer.grid_counts, edges, fill=True, color=BLUE)

    lowest = _lowest_code(layer)
    # more labels than that would touch
    every = 1 if len(grid) <= 16 else len(grid) // 8
    shown = [k for k in range(len(grid)) if (k + lowest) % every == 0]
    above = axes.get_xaxis_transform()
    for k in shown:
        axes.text(
            grid[k], 1.02, str(k + lowest), transform=above, ha="center", va="bottom", fontsize=7, color=INK
        )
    axes.text(0.5, 1.12, "code", transform=axes.transAxes, ha="center", va="bottom", fontsize=8, color=INK)


def _lowest_code(layer: LayerRecord) -> int:
    """Signed codes are odd in number, unsigned ones even."""
    n_codes = len(layer.grid_counts)
    return -(n_codes // 2) if n_codes % 2 else 0


def svg(
    draw: Any, *, width: float = 4.3, height: float = 3.2, margins: Mapping[str, float] | None = None
) -> str:
    """An inline SVG element without fixed size, the same bytes for the same data.

    Its ids are its own: in a page, one figure's clip paths and glyphs are not those of another that may be hidden.

    Args:
        draw: Fills the axes that it is given.
        width: In inches.
        height: Likewise.
        margins: Where the axes are, as `Figure.subplots_adjust` takes it; None: found by measuring everything, which
            takes as long as drawing it.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained" if margins is None else None)
        draw(figure.subplots())
        if margins is not None:
            figure.subplots_adjust(**margins)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)

    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(
        r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", re.sub(r'height="[^"]*pt" ', "", text, count=1), count=1
    )
    # named by the content, so that equal figures give equal bytes
    own = f"f{sha256(text.encode()).hexdigest()[:8]}-"
    text = re.sub(r'<g id="[^"]*">', "<g>", text)

    return re.sub(r'( id="|href="#|url\(#)', rf"\1{own}", text)
