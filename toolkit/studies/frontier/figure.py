"""The curve of sizes and losses as a figure."""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from modelpress.benchmarks.report.plots import BLUE, GREY, STYLE


def curve_figure(points: Sequence[tuple[int, float, float | None]], name: str) -> Figure:
    """Error of the outputs, and where there are classes the share that changed, against the bytes of the file.

    Args:
        points: Bytes, error and percentage points of each file.
        name: Of the model.
    """
    sizes = [size / 1000 for size, _, _ in points]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        axes.plot(
            sizes,
            [100 * error for _, error, _ in points],
            color=BLUE,
            marker="o",
            label="error of the outputs, %",
        )
        changed = [points_changed for _, _, points_changed in points if points_changed is not None]
        if len(changed) == len(points):
            axes.plot(sizes, changed, color=GREY, marker="s", label="classes changed, %")

        axes.set_xlabel("size of the file, kB")
        axes.set_ylim(bottom=0)
        axes.legend()
        axes.set_title(f"{name} at a series of prices")
    return figure
