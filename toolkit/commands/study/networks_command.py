"""The `study networks` command."""

from pathlib import Path
from typing import Annotated

import typer

from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import MEASUREMENT, AsJson
from modelpress.toolkit.commands.requirements import need_torch
from modelpress.toolkit.commands.study.network_options import StartAgain, StudyFolder, named_rows

EXAMPLE = """
modelpress study networks --rows small-cnn,ds-cnn
modelpress study networks -o runs/networks
"""
_NETWORKS = Path("runs/networks")


def command(
    rows: Annotated[
        str,
        typer.Option(
            "--rows", help="Names or patterns of networks, with commas, or all.", rich_help_panel=MEASUREMENT
        ),
    ] = "all",
    output: StudyFolder = _NETWORKS,
    overwrite: StartAgain = False,
    as_json: AsJson = False,
) -> None:
    """Ten networks of other people: 50 % pruned, 4 bits, packed, decoded, written and run in every flavour.

    Untrained, so nothing is fetched; what each file computes is compared with the network in PyTorch. Stop it any time:
    the same command goes on.
    """
    need_torch()
    from modelpress.toolkit.commands.study.networks import study_networks

    outcome = study_networks(named_rows(rows), output, overwrite=overwrite)
    answer(outcome.record, outcome.show, as_json=as_json)
