"""The `study budgets` command."""

from pathlib import Path
from typing import Annotated

import typer

from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import MEASUREMENT, AsJson, JsonFile, Overwrite
from modelpress.toolkit.commands.requirements import need_torch

EXAMPLE = """
modelpress study budgets resnet20.pt
modelpress study budgets resnet20.pt --latency 0.6x --multiple 8 -o budgets.json
"""


def command(
    checkpoint: Annotated[Path, typer.Argument(help="A trained network of this toolkit's kinds.")],
    latency: Annotated[
        list[str], typer.Option(help="Budget, as in 0.75x. Repeatable.", rich_help_panel=MEASUREMENT)
    ] = ["0.75x", "0.45x"],
    multiple: Annotated[
        list[int], typer.Option(min=1, help="Of widths. Repeatable.", rich_help_panel=MEASUREMENT)
    ] = [16, 8],
    arch: Annotated[str, typer.Option(help="Architecture.", rich_help_panel=MEASUREMENT)] = "resnet20",
    shortcut: Annotated[str, typer.Option(help="A or B.", rich_help_panel=MEASUREMENT)] = "B",
    output: JsonFile = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """What budgets of latency leave of a network: multiplications, bytes, latency as floats and in int8.

    Nothing is trained, no data are read.
    """
    need_torch()
    from modelpress.toolkit.commands.study.channels.budgets import study_budgets

    model = {"arch": arch, "shortcut": shortcut}
    outcome = study_budgets(checkpoint, model, latency, multiple, output, overwrite=overwrite)
    answer(outcome.record, outcome.show, as_json=as_json)
