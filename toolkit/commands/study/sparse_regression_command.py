"""The `study sparse-regression` command."""

from pathlib import Path
from typing import Annotated

import typer

from modelpress.export.errors import CommandLineError
from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import OUTPUT, AsJson, Overwrite

EXAMPLE = """
modelpress study sparse-regression -o runs/sparse-regression
modelpress study sparse-regression --X X.csv --y y.csv --lambda 0.1 --lambda 1 -o runs/own
"""
_PROBLEM = "Your own problem"


def command(
    x_file: Annotated[
        Path | None,
        typer.Option("--X", help="X as .npy or .csv, one observation per row.", rich_help_panel=_PROBLEM),
    ] = None,
    y_file: Annotated[
        Path | None, typer.Option("--y", help="y as .npy or .csv.", rich_help_panel=_PROBLEM)
    ] = None,
    strengths: Annotated[
        list[float],
        typer.Option(
            "--lambda",
            help="Strength of a penalty. Repeatable.",
            show_default="1, 3, 10 and 30 % of the one that leaves no weight",
            rich_help_panel=_PROBLEM,
        ),
    ] = [],
    k: Annotated[
        int | None,
        typer.Option("--k", help="Weights kept.", show_default="a tenth", rich_help_panel=_PROBLEM),
    ] = None,
    step: Annotated[
        float | None,
        typer.Option(
            help="Step size.", show_default="1 / Lipschitz constant of the gradient", rich_help_panel=_PROBLEM
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Number of steps.", show_default="1000", rich_help_panel=_PROBLEM),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("-o", "--output-dir", help="Folder for figures and results.", rich_help_panel=OUTPUT),
    ] = Path("runs/sparse-regression"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Gradient descent, iterative pruning, L1 subgradient, proximal gradient, FISTA and trimmed L1 side by side.

    Without a problem of your own: the published series, every figure beside the published one. Needs no torch.
    """
    from modelpress.toolkit.commands.study.sparse_regression import study_own, study_reference

    given = bool(strengths) or any(value is not None for value in (k, step, steps))
    if x_file is None and y_file is None:
        if given:
            raise CommandLineError(
                "--lambda, --k, --step and --steps are for your own problem: give --X and --y"
            )
        outcome = study_reference(output, overwrite=overwrite)
    elif x_file is None or y_file is None:
        raise CommandLineError("--X and --y belong together: give both files")
    else:
        outcome = study_own(
            x_file, y_file, output, strengths=strengths, k=k, step=step, steps=steps, overwrite=overwrite
        )
    answer(outcome.record, outcome.show, as_json=as_json)
