"""The `bench archives` command."""

from pathlib import Path
from typing import Annotated

import typer

from modelpress.export.choices import Effort
from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import MEASUREMENT, AsJson, JsonFile, Overwrite
from modelpress.toolkit.commands.recipe_options import recipe_option

EXAMPLE = """
modelpress bench archives resnet18.onnx mobilenet.onnx -o archives.json
"""


def command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="ONNX models, from anywhere.")],
    effort: Annotated[
        Effort, recipe_option("pack.effort", "--effort", default=True, panel=MEASUREMENT)
    ] = "default",
    output: JsonFile = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Bytes of whole files packed without loss, beside zstandard -19 and xz -9e. Needs no torch."""
    from modelpress.toolkit.commands.bench.codes import measure_archives, show_archives
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.output_folder import check_output_file, write_json

    if output is not None:
        check_output_file(output, overwrite=overwrite)

    facts = measure_archives(files, effort, TerminalProgress())
    answer(facts, lambda: show_archives(facts), as_json=as_json)
    if output is not None:
        write_json(output, facts)
