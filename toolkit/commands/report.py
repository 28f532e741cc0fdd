"""The `report` command."""

from pathlib import Path
from typing import Annotated

import typer

from modelpress.toolkit.commands.options import Overwrite, output_file
from modelpress.toolkit.commands.saying import say_line

EXAMPLE = """
modelpress report results.json -o report.html
modelpress report runs/a/results.json runs/b/results.json -o comparison.md
modelpress report results.json -o accuracy.svg
"""


def command(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS",
            help="results.json of one or several runs; the first is what the others are beside.",
        ),
    ],
    output: Path = output_file(
        "HTML page; Markdown tables with the suffix .md, accuracy against size as a figure with .svg.",
        "report.html",
    ),
    overwrite: Overwrite = False,
) -> None:
    """Draw results as one HTML file, or as Markdown tables. Several runs stand side by side. Needs no torch."""
    from modelpress.benchmarks.records import read_results
    from modelpress.benchmarks.report.comparison import run_names
    from modelpress.benchmarks.report.page import write_report
    from modelpress.toolkit.output_folder import check_output_file

    check_output_file(output, overwrite=overwrite)
    names = run_names(results)
    write_report(output, [read_results(path) for path in results], names)
    say_line(f"{output}: {len(results)} run{'s' * (len(results) > 1)}")
