"""The `study tasks` command."""

from pathlib import Path
from typing import Annotated

import typer

from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import MEASUREMENT, AsJson
from modelpress.toolkit.commands.requirements import need_torch
from modelpress.toolkit.commands.study.network_options import StudyFolder, named_rows

EXAMPLE = """
modelpress study tasks --rows table,tokens
modelpress study tasks -o runs/tasks
"""
_TASKS = Path("runs/tasks")


def command(
    rows: Annotated[
        str,
        typer.Option("--rows", help="Names of tasks, with commas, or all.", rich_help_panel=MEASUREMENT),
    ] = "all",
    output: StudyFolder = _TASKS,
    as_json: AsJson = False,
) -> None:
    """Images in a folder, a table, sounds, tokens: each trained, compressed, packed, measured and handed over.

    Data are made of what is at hand, nothing is fetched. Every bundle's verify.py is run with numpy and onnxruntime
    alone.
    """
    need_torch(together=True)
    from modelpress.toolkit.commands.study.tasks import study_tasks

    outcome = study_tasks(named_rows(rows), output)
    answer(outcome.record, outcome.show, as_json=as_json)
