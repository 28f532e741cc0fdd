"""The `study channels` command."""

from typing import Annotated

import typer

from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import MEASUREMENT, AsJson, JsonFile, Overwrite
from modelpress.toolkit.commands.requirements import need_torch

EXAMPLE = """
modelpress study channels --networks resnet20-a,resnet20-b
modelpress study channels -o channels.json
"""


def command(
    networks: Annotated[
        str, typer.Option(help="Names with commas, or all.", rich_help_panel=MEASUREMENT)
    ] = "all",
    output: JsonFile = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Nine kinds of networks with 40 % of the weights gone in whole channels: the small beside the masked ones.

    Untrained, so nothing is fetched.
    """
    need_torch()
    from modelpress.toolkit.commands.study.channels.channels import study_channels

    outcome = study_channels(networks, output, overwrite=overwrite)
    answer(outcome.record, outcome.show, as_json=as_json)
