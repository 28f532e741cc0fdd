"""The `bench large` command."""

from typing import Annotated

import typer

from modelpress.export.choices import Effort
from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import MEASUREMENT, AsJson, JsonFile, Overwrite
from modelpress.toolkit.commands.recipe_options import recipe_option

EXAMPLE = """
modelpress bench large -o large.json
"""


def command(
    matrices: Annotated[
        int,
        typer.Option(
            min=1, help="Of 100 MB each; twice as much disk is needed.", rich_help_panel=MEASUREMENT
        ),
    ] = 24,
    effort: Annotated[
        Effort, recipe_option("pack.effort", "--effort", default=True, panel=MEASUREMENT)
    ] = "default",
    output: JsonFile = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Memory and processor time of packing, verifying and unpacking a model too large for one ONNX file."""
    from modelpress.toolkit.commands.bench.large import measure_large, show_large
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.output_folder import check_output_file, write_json

    if output is not None:
        check_output_file(output, overwrite=overwrite)

    facts = measure_large(matrices, effort, TerminalProgress())
    answer(facts, lambda: show_large(facts), as_json=as_json)
    if output is not None:
        write_json(output, facts)
