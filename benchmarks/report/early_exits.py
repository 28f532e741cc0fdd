"""The section of the report on early exits: who leaves where, and accuracy against mean latency."""

from collections.abc import Iterator
from typing import Any

from matplotlib.axes import Axes

from modelpress.benchmarks.records import ExitsRecord
from modelpress.benchmarks.report.figures import ReportFigure
from modelpress.benchmarks.report.plots import BLUE, GREY, ORANGE, svg
from modelpress.benchmarks.report.tables import NONE, Row, percent


def exits_view(record: ExitsRecord) -> dict[str, Any]:
    """What the page shows of one file."""
    return {
        "path": record.path,
        "rows": list(exit_rows(record)),
        "summary": list(exits_summary(record)),
        "figures": [
            ReportFigure(
                "Accuracy against mean latency",
                accuracy_against_latency(record),
                "Line: one threshold for all exits, from leaving at once to never. Left and up is better.",
                f"Accuracy against mean latency: {percent(record.top1, digits=2)} at {record.ratio:.2f} of the full "
                f"network's latency, which has {percent(record.baseline_top1, digits=2)}",
            )
        ],
    }


def exit_rows(record: ExitsRecord) -> Iterator[Row]:
    """A row for each exit, the last one at the end."""
    for exit in record.exits:
        latency = exit.latency_ms
        yield {
            "after": exit.after,
            "threshold": NONE if exit.threshold is None else f"{exit.threshold:.3f}",
            "share": percent(exit.share, digits=1),
            "top1": percent(exit.top1, digits=2),
            "alone": percent(exit.alone_top1, digits=2),
            "latency": NONE if latency is None else f"{latency:.3f}",
            "ratio": NONE if latency is None else f"{latency / record.baseline_ms:.2f}x",
        }


def exits_summary(record: ExitsRecord) -> Iterator[str]:
    """Sentences under the table."""
    change = 100 * (record.top1 - record.baseline_top1)
    yield (
        f"Mean latency {record.ratio:.2f}x of the full network's ({record.latency_ms:.3f} ms against "
        f"{record.baseline_ms:.3f} ms of {record.clock}; {record.n_timed:,} images one at a time, one thread, in turns "
        f"with {record.baseline})."
    )
    yield (
        f"Top-1 {percent(record.top1, digits=2)} against {percent(record.baseline_top1, digits=2)} of the full network "
        f"({change:+.2f} points), over {record.n_images:,} images."
    )
    yield (
        f"Overthinking: {record.overthinking:,} images ({percent(record.overthinking / record.n_images, digits=1)}) that "
        "an early exit gets right and the last one wrong."
    )


def accuracy_against_latency(record: ExitsRecord) -> str:
    """The curve over common thresholds, with the file's own thresholds and the full network as points."""

    def draw(axes: Axes) -> None:
        line = sorted((point.latency_ratio, 100 * point.top1) for point in record.curve)
        axes.plot([x for x, _ in line], [y for _, y in line], color=GREY, marker=".", label="one threshold for all")
        own = (record.ratio, 100 * record.top1)
        axes.scatter(*own, c=BLUE, s=36, zorder=3, label="thresholds of the file")
        full = (1.0, 100 * record.baseline_top1)
        axes.scatter(*full, c=ORANGE, s=36, marker="s", zorder=3, label="full network")
        axes.set_xlabel("mean latency, full network = 1")
        axes.set_ylabel("top-1 accuracy, %")
        axes.legend(loc="lower right", fontsize=8)

    return svg(draw, height=3.6)
