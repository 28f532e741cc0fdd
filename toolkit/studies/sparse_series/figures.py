"""Figures of the study: the loss and every weight against steps, per method and at a glance."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from modelpress.benchmarks.report.plots import BLUE, GREY, SERIES, STYLE
from modelpress.toolkit.studies.sparse_series.study import Curves, Outcome, by_method

_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))  # a second sign beside the colour
_NAMED_WEIGHTS = 12  # up to so many, every weight has a colour and a name


def method_figure(method: str, outcomes: Sequence[Outcome]) -> Figure:
    """log10 loss above, weights below, one column per parameter; all columns share their axes."""
    columns = len(outcomes)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.6 + 2.9 * columns, 5.6), layout="constrained")
        axes = figure.subplots(2, columns, sharex=True, sharey="row", squeeze=False)
        for column, outcome in enumerate(outcomes):
            upper, lower = axes[:, column]
            upper.set_title(_panel_title(outcome), fontsize=10)
            upper.plot(outcome.curves.steps, outcome.curves.log10_loss, color=BLUE, linewidth=1.8)
            _draw_weights(lower, outcome.curves)
            lower.set_xlabel("step")

        axes[0, 0].set_ylabel("log₁₀ of the squared error")
        axes[1, 0].set_ylabel("weight")
        _weight_legend(figure, outcomes[0].curves)
        figure.suptitle(method, fontsize=13, fontweight="bold")

    return figure


def overview_figure(outcomes: Sequence[Outcome]) -> Figure:
    """Every method at the middle one of its parameters: all losses in one panel, the weights in one panel each."""
    chosen = [group[len(group) // 2] for _, group in by_method(outcomes)]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 9.5), layout="constrained")
        halves: Any = figure.subfigures(2, 1, height_ratios=(0.8, 1.2))
        top, bottom = halves

        axes = top.subplots()
        for index, outcome in enumerate(chosen):
            axes.plot(
                outcome.curves.steps,
                outcome.curves.log10_loss,
                color=SERIES[index % len(SERIES)],
                linestyle=_DASHES[index % len(_DASHES)],
                linewidth=2,
                label=f"{outcome.experiment.method} {outcome.experiment.parameter}".strip(),
            )

        axes.set_xlabel("step")
        axes.set_ylabel("log₁₀ of the squared error")
        top.legend(loc="outside right center", title="squared error", alignment="left")

        panels = bottom.subplots(2, -(-len(chosen) // 2), sharex=True, sharey=True).flat
        for panel, outcome in zip(panels, chosen, strict=False):
            panel.set_title(f"{outcome.experiment.method}\n{_panel_title(outcome)}", fontsize=9)
            _draw_weights(panel, outcome.curves)
            panel.set_xlabel("step")
            panel.label_outer()

        panels[0].set_ylabel("weight")
        _weight_legend(bottom, chosen[0].curves)
        figure.suptitle("Sparse regression, method by method", fontsize=13, fontweight="bold")

    return figure


def _panel_title(outcome: Outcome) -> str:
    found = outcome.solution
    nonzero = f"{found.support_size} of {len(found.weights)} nonzero"
    return f"{outcome.experiment.parameter}\n{nonzero}" if outcome.experiment.parameter else nonzero


def _draw_weights(axes: Axes, curves: Curves) -> None:
    axes.axhline(0, color="#9AA0A8", linewidth=0.8)
    for index in range(curves.weights.shape[1]):
        axes.plot(curves.steps, curves.weights[:, index], **_line(curves, index))


def _line(curves: Curves, index: int) -> dict[str, Any]:
    if curves.n_weights <= _NAMED_WEIGHTS:
        colour, dash = SERIES[index % len(SERIES)], _DASHES[index % len(_DASHES)]
        return {"color": colour, "linestyle": dash, "linewidth": 1.8}
    zero = curves.weights[-1, index] == 0
    return {"color": GREY if zero else BLUE, "linewidth": 0.8, "alpha": 0.8, "zorder": 2 if zero else 3}


def _weight_legend(figure: Any, curves: Curves) -> None:
    """Beside the panels, where it covers no line."""
    if curves.n_weights <= _NAMED_WEIGHTS:
        lines = [Line2D([], [], **_line(curves, index)) for index in range(curves.n_weights)]
        names, title = [f"w{chr(0x2081 + i) if i < 9 else i + 1}" for i in range(curves.n_weights)], "weight"
    else:
        lines = [Line2D([], [], color=colour) for colour in (BLUE, GREY)]
        names = ["ends nonzero", "ends at exactly 0"]
        title = f"weight\n({len(curves.drawn)} of {curves.n_weights:,} drawn)"
        if len(curves.drawn) == curves.n_weights:
            title = "weight"
    figure.legend(lines, names, title=title, loc="outside right center", alignment="left", handlelength=3)
