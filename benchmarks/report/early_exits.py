"""The section of the report on early exits: who leaves where, and accuracy against mean latency."""

from typing import Any

from matplotlib.axes import Axes

from modelpress.benchmarks.records import ExitsRecord
from modelpress.benchmarks.report.exit_tables import EXIT_HEADINGS, exit_rows, exits_summary
from modelpress.benchmarks.report.figures import ReportFigure
from modelpress.benchmarks.report.plots import BLUE, GREY, ORANGE, svg
from modelpress.benchmarks.report.tables import percent


def exits_view(record: ExitsRecord) -> dict[str, Any]:
    """What the page shows of one file."""
    return {
        "path": record.path,
        "headings": EXIT_HEADINGS,
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


def accuracy_against_latency(record: ExitsRecord) -> str:
    """The curve over common thresholds, with the file's own thresholds and the full network as points."""

    def draw(axes: Axes) -> None:
        line = sorted((point.latency_ratio, 100 * point.top1) for point in record.curve)
        axes.plot(
            [x for x, _ in line], [y for _, y in line], color=GREY, marker=".", label="one threshold for all"
        )
        own = (record.ratio, 100 * record.top1)
        axes.scatter(*own, c=BLUE, s=36, zorder=3, label="thresholds of the file")
        full = (1.0, 100 * record.baseline_top1)
        axes.scatter(*full, c=ORANGE, s=36, marker="s", zorder=3, label="full network")
        axes.set_xlabel("mean latency, full network = 1")
        axes.set_ylabel("top-1 accuracy, %")
        axes.legend(loc="lower right", fontsize=8)

    return svg(draw, height=3.6)
