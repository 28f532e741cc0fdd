"""The `study exports` command."""

from pathlib import Path
from typing import Annotated

import typer

from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import MEASUREMENT, AsJson
from modelpress.toolkit.commands.requirements import need_torch
from modelpress.toolkit.commands.study.network_options import StartAgain, StudyFolder, named_rows

EXAMPLE = """
modelpress study exports --rows "squeezenet*"
modelpress study exports -o runs/exports
"""
_EXPORTS = Path("runs/exports")


def command(
    rows: Annotated[
        str,
        typer.Option(
            "--rows", help="Names or patterns of rows, with commas, or all.", rich_help_panel=MEASUREMENT
        ),
    ] = "all",
    output: StudyFolder = _EXPORTS,
    overwrite: StartAgain = False,
    as_json: AsJson = False,
) -> None:
    """Ten networks of torchvision as both exporters write them: packed, in every flavour, beside quantize_static.

    Untrained, so nothing is fetched. Stop it any time: the same command goes on.
    """
    need_torch()
    from modelpress.toolkit.commands.study.exports import study_exports

    outcome = study_exports(named_rows(rows), output, overwrite=overwrite)
    answer(outcome.record, outcome.show, as_json=as_json)
