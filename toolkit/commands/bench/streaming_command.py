"""The `bench streaming` command."""

from typing import Annotated

import typer

from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import MEASUREMENT, AsJson, JsonFile, Overwrite, Rounds
from modelpress.toolkit.commands.requirements import need_torch

EXAMPLE = """
modelpress bench streaming
modelpress bench streaming --size 2000 -o streaming.json
"""
_COLUMNS = {"way": "images", "speed": "images per second", "ratio": "ratio", "memory": "memory, MB"}


def command(
    size: Annotated[
        int,
        typer.Option(
            min=10,
            metavar="MIB",
            help="Of all images; a tenth may be in memory.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = 200,
    batch: Annotated[int, typer.Option(min=1, help="Images per step.", rich_help_panel=MEASUREMENT)] = 256,
    rounds: Rounds = 3,
    output: JsonFile = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Images per second in training on data ten times larger than the memory they may take, beside data in memory.

    A small network on images of 32 by 32, which are made up; each way in a process of its own, in turn. Leave the
    machine alone meanwhile.
    """
    need_torch()
    from modelpress.toolkit.commands.console import TerminalProgress, print_table
    from modelpress.toolkit.output_folder import check_output_file, write_json
    from modelpress.toolkit.studies.training_speed.streaming import measure_streaming

    if output is not None:
        check_output_file(output, overwrite=overwrite)
    facts = measure_streaming(mib=size, batch=batch, rounds=rounds, progress=TerminalProgress())

    rows = [
        {
            "way": way["way"],
            "speed": f"{way['images_per_second']['median']:,.0f}",
            "ratio": f"{way['ratio']:.2f}",
            "memory": f"{way['peak_bytes'] / 1e6:,.0f}",
        }
        for way in facts["ways"]
    ]
    whole, allowed = facts["data_bytes"] / 1e6, facts["allowed_bytes"] / 1e6
    title = f"{facts['images']:,} images, {whole:,.0f} MB; streamed where {allowed:,.0f} MB may be in memory"
    answer(facts, lambda: print_table(title, rows, _COLUMNS), as_json=as_json)
    if output is not None:
        write_json(output, facts)
