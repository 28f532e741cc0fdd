"""The `sweep` command."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import OUTPUT, RECIPE, AsJson, Wide
from modelpress.toolkit.commands.requirements import need_sweep, need_torch
from modelpress.toolkit.commands.saying import say_line

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = """
modelpress sweep -c sweep.yaml -o runs/sweep
modelpress sweep -c sweep.yaml -o runs/sweep --trials 100 --address ray://head:10001
"""
_PLACES = "Where"


def command(
    config: Annotated[
        Path,
        typer.Option(
            "-c",
            "--config",
            help="YAML: a base recipe, ranges by recipe key (search), objectives with limits.",
            show_default=False,
            rich_help_panel=RECIPE,
        ),
    ],
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="How many.", show_default="the file's", rich_help_panel=RECIPE),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A Ray cluster, ray://HOST:PORT; workers need no folder of ours.",
            show_default="this machine's cores, for as long as the sweep lasts",
            rich_help_panel=_PLACES,
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output-dir",
            help="Folder of the study and of all trials; the same command goes on there.",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("runs/sweep"),
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Refuse to begin: there must be a sweep.", rich_help_panel=OUTPUT),
    ] = False,
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """Search recipes: Optuna chooses trials, Ray places them on one machine or on many.

    Trials are judged by held-out examples; those on the front are measured on the test set, once, at the end. Stop it
    any time: the same command goes on.
    """
    need_torch()
    need_sweep()
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.sweeps.driver import run_sweep
    from modelpress.toolkit.sweeps.plan import load_plan

    plan = load_plan(config, trials=trials)
    record = run_sweep(plan, output, address=address, resume=resume, progress=TerminalProgress())
    answer(record, lambda: _show(record, output, wide=wide), as_json=as_json)


def _show(record: dict[str, Any], folder: Path, *, wide: bool) -> None:
    """The front as a table, and where everything is."""
    from modelpress.toolkit.commands.console import print_table

    front = [trial for trial in record["trials"] if trial["on_front"]]
    measures = [objective["measure"] for objective in record["objectives"]]
    columns = {"number": "trial", **{measure: measure for measure in measures}, "test": "test set"}
    keys = {key: key for key in record["sweep"]["search"]}
    print_table(
        f"Front of {len(record['trials'])} trials",
        _rows(front, measures),
        {**columns, **keys},
        narrow=[columns],
        wide=wide,
    )
    say_line(f"   record  {folder / 'sweep.json'}")
    say_line(f"     page  {folder / 'sweep.html'}")


def _rows(front: list[dict[str, Any]], measures: list[str]) -> "Iterator[dict[str, str]]":
    from modelpress.benchmarks.report.sweep_page import shown_value

    for trial in front:
        chosen = {
            key: f"{value:.4g}" if isinstance(value, float) else str(value)
            for key, value in trial["chosen"].items()
        }
        values = {measure: shown_value(measure, trial["values"][measure]) for measure in measures}
        yield {
            "number": str(trial["number"]),
            **values,
            "test": shown_value("test", trial["test"]["figure"]),
            **chosen,
        }
