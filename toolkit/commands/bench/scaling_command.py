"""The `bench scaling` command."""

from typing import Annotated

import typer

from modelpress.export.choices import Effort
from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import MEASUREMENT, AsJson, JsonFile, Overwrite, Rounds
from modelpress.toolkit.commands.recipe_options import recipe_option

EXAMPLE = """
modelpress bench scaling --weights "1000000 10000000" --effort fast
"""


def command(
    weights: Annotated[
        list[str], typer.Option(metavar="N ...", help="Sizes of the tensor.", rich_help_panel=MEASUREMENT)
    ] = ["1000000", "10000000", "100000000"],
    effort: Annotated[
        Effort, recipe_option("pack.effort", "--effort", default=True, panel=MEASUREMENT)
    ] = "default",
    rounds: Rounds = 3,
    output: JsonFile = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Time per weight and memory of packing and loading one tensor of growing size. Needs no torch."""
    from modelpress.toolkit.commands.bench.codes import measure_scaling, show_scaling
    from modelpress.toolkit.commands.bench.numbers import numbers
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.output_folder import check_output_file, write_json

    if output is not None:
        check_output_file(output, overwrite=overwrite)

    facts = measure_scaling(numbers("--weights", " ".join(weights)), effort, rounds, TerminalProgress())
    answer(facts, lambda: show_scaling(facts), as_json=as_json)
    if output is not None:
        write_json(output, facts)
