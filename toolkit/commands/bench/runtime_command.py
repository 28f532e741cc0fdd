"""The `bench runtime` command."""

from pathlib import Path
from typing import Annotated

import typer

from modelpress.export.choices import DEFAULT_TIMEOUT_S
from modelpress.export.errors import CommandLineError
from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import MEASUREMENT, AsJson, JsonFile, Overwrite, Timeout, Wide

EXAMPLE = """
modelpress bench runtime
modelpress bench runtime model.onnx --versions 1.15.0,1.20.1
"""


def command(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="ONNX files to run in other versions.", show_default=False),
    ] = [],
    versions: Annotated[
        str | None,
        typer.Option(
            metavar="V,V,...",
            help="Versions of ONNX Runtime, as in 1.15.1,1.20.0; each is fetched into an environment of its own.",
            show_default=False,
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    output: JsonFile = None,
    overwrite: Overwrite = False,
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """What ONNX Runtime does with each way of storing weights, or whether files run in other versions.

    Without files: every row of the table that the flavours are built on is tried out in the installed version. Needs
    no torch.
    """
    from modelpress.toolkit.commands.bench import runtime
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.output_folder import check_output_file, write_json

    if bool(paths) != (versions is not None):
        raise CommandLineError("give both or neither: FILE… to run, and --versions to run them in")
    if output is not None:
        check_output_file(output, overwrite=overwrite)

    if versions is None:
        facts, show = runtime.capabilities(), runtime.show_capabilities
    else:
        wanted = versions.replace(",", " ").split()
        facts, show = runtime.versions_of(paths, wanted, TerminalProgress()), runtime.show_versions
    answer(facts, lambda: show(facts, wide=wide), as_json=as_json)
    if output is not None:
        write_json(output, facts)
