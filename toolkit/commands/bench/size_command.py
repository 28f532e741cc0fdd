"""The `bench size` command."""

from pathlib import Path
from typing import Annotated

import typer

from modelpress.export.errors import CommandLineError
from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import (
    MEASUREMENT,
    OUTPUT,
    AsJson,
    JsonFile,
    MaxDecoded,
    Overwrite,
    Wide,
)

EXAMPLE = """
modelpress bench size model.press
modelpress bench size model.press --plot ladder.svg
modelpress bench size s70-w4.press s70-w3.press --peers nncodec-sizes.json -o code-sizes.json
"""


def command(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE", help=".press files.", show_default=False)],
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw the ladder of the first file here (.svg).", show_default=False, rich_help_panel=OUTPUT
        ),
    ] = None,
    peers: Annotated[
        Path | None,
        typer.Option(
            metavar="JSON",
            help="A record of benchmarks/peers/nncodec_sizes.py: each file is packed anew at every effort, beside it.",
            show_default=False,
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    output: JsonFile = None,
    max_decoded: MaxDecoded = 2,
    overwrite: Overwrite = False,
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """The size ladder: the same weights in every form. Each is decoded again; per tensor and in all. Needs no torch."""
    from modelpress.toolkit.commands.bench.codes import (
        beside_peers,
        draw_ladder,
        ladder_of,
        show_beside,
        show_ladder,
    )
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.output_folder import check_output_file, write_json

    if plot is not None:
        if peers is not None:
            raise CommandLineError(
                "--plot draws a ladder, --peers compares with another coder: give one of them"
            )
        check_output_file(plot, overwrite=overwrite)
        if plot.suffix != ".svg":
            raise CommandLineError(f"{plot}: expected a name that ends in .svg")

    if output is not None:
        check_output_file(output, overwrite=overwrite)

    if peers is not None:
        facts = beside_peers(paths, peers, TerminalProgress(), max_decoded_bytes=max_decoded << 30)
        answer(facts, lambda: show_beside(facts), as_json=as_json)
        if output is not None:
            write_json(output, facts)
        return

    ladders = [ladder_of(path, TerminalProgress(), max_decoded_bytes=max_decoded << 30) for path in paths]

    def show() -> None:
        for ladder in ladders:
            show_ladder(ladder, wide=wide)

    answer(ladders, show, as_json=as_json)
    if output is not None:
        write_json(output, {"files": ladders})
    if plot is not None:
        draw_ladder(plot, ladders[0])
