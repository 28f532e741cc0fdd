"""The `bench archives` command."""

from pathlib import Path
from typing import Annotated

import typer

from modelpress.export.choices import Effort
from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import MEASUREMENT, AsJson, JsonFile, Overwrite, Resume
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
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Bytes of whole files packed without loss, beside zstandard -19 and xz -9e. Needs no torch.

    The output is written after every file; --resume measures those that are not in it.
    """
    from modelpress.toolkit.commands.bench.archives import known_archives, measure_archives, show_archives
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.output_folder import check_one_intention, check_output_file, write_json

    check_one_intention(overwrite=overwrite, resume=resume)
    if output is not None:
        check_output_file(output, overwrite=overwrite or resume)
    known = known_archives(output, effort) if output is not None and resume else []

    facts = measure_archives(
        files,
        effort,
        TerminalProgress(),
        known=known,
        on_file=lambda facts: None if output is None else write_json(output, facts),
    )
    answer(facts, lambda: show_archives(facts), as_json=as_json)
