"""What a command answers: on stdout, for people or as JSON. Progress and notes go to stderr, see `console`."""

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from modelpress.toolkit.commands.verbosity import VERBOSITY

if TYPE_CHECKING:
    from modelpress.benchmarks.records import Results

_FILES = (
    ("model.press", "artifact"),
    ("model-*.onnx", "ONNX"),
    ("report.html", "report"),
    ("results.json", "results"),
)


def answer(facts: Any, show: Callable[[], object], *, as_json: bool, beside_json: bool = True) -> None:
    """Print what was asked for on stdout: what `show` prints, or JSON.

    Args:
        facts: For programs.
        show: Prints them for people.
        as_json: Whether a program asked; then stdout holds nothing but the JSON.
        beside_json: Whether people see theirs on stderr then.
    """
    if not as_json:
        show()
        return

    if beside_json and not VERBOSITY.quiet:
        with redirect_stdout(sys.stderr):
            show()
    typer.echo(json.dumps(facts, indent=2))


def answer_line(text: str, facts: Any, *, as_json: bool) -> None:
    """`answer` with one line for people, which is never broken or styled."""
    answer(facts, lambda: typer.echo(text), as_json=as_json)


def show_results(results: "Results", folder: Path, *, wide: bool = False) -> None:
    """A table of all files, and where they are."""
    from modelpress.toolkit.commands.bench.tables import show_files

    show_files(results, wide=wide)
    for pattern, what in _FILES:
        for path in sorted(folder.glob(pattern)):
            typer.echo(f"{what:>9}  {path}")
