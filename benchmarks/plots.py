"""Figures of the report, as SVG text that scales; colours that colour-blind readers can tell apart."""

import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.records import LayerRecord, ModelRecord

# Okabe and Ito 2008, "Color Universal Design"
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8A8F98"
SERIES = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9")
STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9AA0A8",
    "axes.labelcolor": "#333A44",
    "xtick.color": "#333A44",
    "ytick.color": "#333A44",
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
    values = [rungs[name] for name in names]

    def draw(axes: Axes) -> None:
        colours = [BLUE if name in ("as stored", "whole file") else GREY for name in names]
        axes.barh(names, values, color=colours, height=0.65)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 3, max(values) * 6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("bytes (logarithmic)")
        for row, value in enumerate(values):
            axes.text(value * 1.1, row, f"{value:,}", va="center", fontsize=9, color="#333A44")

    return _svg(draw, height=0.9 + 0.34 * len(names))


def sparsity_per_layer(layers: list[LayerRecord], total: float) -> str:
    """One bar per layer, in network order, and the total as a line."""

    def draw(axes: Axes) -> None:
        axes.bar(
            range(1, len(layers) + 1), [100 * layer.sparsity for layer in layers], color=BLUE, width=0.75
        )
        axes.axhline(
            100 * total, color=RED, linewidth=1.5, linestyle="--", label=f"all layers: {100 * total:.1f} %"
        )
        axes.set_ylim(0, 112)
        axes.set_yticks(range(0, 101, 20))
        axes.set_xlabel("convolution or linear layer, in network order")
        axes.set_ylabel("weights that are exactly 0, %")
        axes.grid(axis="x", visible=False)
        axes.legend(loc="upper left")

    return _svg(draw)


def latency_bars(models: list[ModelRecord]) -> str:
    """Median latency per image, grouped by batch size and thread count; whiskers reach p90."""
    settings = [(record.batch, record.threads) for record in models[0].latency]
    width = 0.8 / len(models)

    def draw(axes: Axes) -> None:
        for index, model in enumerate(models):
            x = [group + index * width for group in range(len(settings))]
            p50 = [record.p50_ms / record.batch for record in model.latency]
            above = [(record.p90_ms - record.p50_ms) / record.batch for record in model.latency]
            axes.bar(x, p50, width * 0.92, color=SERIES[index % len(SERIES)], label=_plain_text(model.path))
            axes.errorbar(
                x, p50, [[0.0] * len(x), above], fmt="none", ecolor="#333A44", elinewidth=1, capsize=2
            )
        centre = width * (len(models) - 1) / 2
        axes.set_xticks([group + centre for group in range(len(settings))])
        axes.set_xticklabels([f"batch {b}\n{t} thread{'s' * (t > 1)}" for b, t in settings], fontsize=8)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.3)
        axes.set_ylabel("milliseconds per image")
        axes.grid(axis="x", visible=False)
        axes.legend(loc="upper right", fontsize=8)

    return _svg(draw)


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

    return _svg(draw)


_SHARES = {"validation accuracy": "validation_top1", "weights at 0": "sparsity"}


def _percent(epochs: list[dict[str, Any]], key: str) -> list[float]:
    """A share of every epoch in percent; empty where it was not measured."""
    values = [epoch.get(key) for epoch in epochs]
    return [100 * value for value in values if value is not None]


def _plain_text(name: str) -> str:
    """A legend entry as it stands: no mathematics between dollar signs, none hidden by an underscore."""
    return "\u200b" + name.replace("$", r"\$")


def weight_histogram(layer: LayerRecord) -> str:
    """How often each value of the quantization grid is used; a plain histogram for float layers."""

    def draw(axes: Axes) -> None:
        if layer.grid:
            step = layer.grid[1] - layer.grid[0]
            axes.bar(layer.grid, layer.grid_counts, width=0.7 * step, color=BLUE)
        else:
            widths = [right - left for left, right in zip(layer.bin_edges, layer.bin_edges[1:], strict=False)]
            axes.bar(layer.bin_edges[:-1], layer.bin_counts, width=widths, align="edge", color=GREY)
        axes.set_xlabel("weight")
        axes.set_ylabel("nonzero weights")

    return _svg(draw, width=3.4, height=2.1)


def _svg(draw: Any, *, width: float = 4.8, height: float = 3.2) -> str:
    """An inline SVG element without fixed size, the same bytes for the same data."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return re.sub(
        r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", re.sub(r'height="[^"]*pt" ', "", svg, count=1), count=1
    )
