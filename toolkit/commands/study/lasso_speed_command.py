"""The `study lasso-speed` command."""

from typing import Annotated

import typer

from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import MEASUREMENT, AsJson, JsonFile, Overwrite

EXAMPLE = """
modelpress study lasso-speed
modelpress study lasso-speed --samples 500 --features 2000 --lambda 0.1 -o lasso.json
"""


def command(
    samples: Annotated[int, typer.Option(min=2, help="Rows of X.", rich_help_panel=MEASUREMENT)] = 2000,
    features: Annotated[int, typer.Option(min=2, help="Columns of X.", rich_help_panel=MEASUREMENT)] = 10_000,
    fractions: Annotated[
        list[float],
        typer.Option(
            "--lambda",
            min=1e-4,
            max=0.999,
            help="Penalty, relative to the one that leaves no weight. Repeatable.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = [0.1, 0.05, 0.02, 0.01],
    rounds: Annotated[
        int, typer.Option(min=1, help="How often the solvers take turns.", rich_help_panel=MEASUREMENT)
    ] = 3,
    output: JsonFile = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Our lasso solvers beside scikit-learn's coordinate descent, to the same duality gap."""
    from modelpress.toolkit.commands.study.lasso_speed import lasso_speed

    outcome = lasso_speed(
        samples=samples,
        features=features,
        fractions=fractions,
        rounds=rounds,
        output=output,
        overwrite=overwrite,
    )
    answer(outcome.record, outcome.show, as_json=as_json)
