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
modelpress bench runtime model.onnx --engines openvino,opencv,reference,onnxruntime==1.15.1
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
    engines: Annotated[
        str | None,
        typer.Option(
            metavar="E,E,...",
            help="Other engines: openvino, opencv, reference (extra interop), onnxruntime-web (in Node, with the "
            "modules in $MODELPRESS_NODE_MODULES) and onnxruntime==VERSION.",
            show_default=False,
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    inputs: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Random inputs for --engines.", rich_help_panel=MEASUREMENT),
    ] = 4,
    output: JsonFile = None,
    overwrite: Overwrite = False,
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """What ONNX Runtime does with each way of storing weights, or whether files run in other versions and engines.

    Without files: every row of the table that the flavours are built on is tried out in the installed version. Needs
    no torch.
    """
    from modelpress.toolkit.commands.bench import runtime
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.output_folder import check_output_file, write_json

    if bool(paths) != (versions is not None or engines is not None):
        raise CommandLineError(
            "give both or neither: FILE… to run, and --versions or --engines to run them in"
        )
    if versions is not None and engines is not None:
        raise CommandLineError(
            "--versions is for ONNX Runtime alone; with --engines name onnxruntime==VERSION"
        )
    if output is not None:
        check_output_file(output, overwrite=overwrite)

    if engines is not None:
        wanted = engines.replace(",", " ").split()
        facts, show = runtime.engines_of(paths, wanted, inputs, TerminalProgress()), runtime.show_engines
    elif versions is None:
        facts, show = runtime.capabilities(), runtime.show_capabilities
    else:
        wanted = versions.replace(",", " ").split()
        facts, show = runtime.versions_of(paths, wanted, TerminalProgress()), runtime.show_versions
    answer(facts, lambda: show(facts, wide=wide), as_json=as_json)
    if output is not None:
        write_json(output, facts)
