"""What people see in a terminal: answers on stdout, so that they can be piped; progress and notes on stderr."""

import sys
import time
from collections.abc import Collection, Iterable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from modelpress.toolkit.commands.verbosity import VERBOSITY

_PIPE_WIDTH = 140  # columns where there is no terminal


class _Notes(Console):
    """Silent where errors only are wanted."""

    def print(self, *objects: Any, **style: Any) -> None:
        """As rich's."""
        if not VERBOSITY.quiet:
            super().print(*objects, **style)


ANSWER = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
NOTES = _Notes(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _PIPE_WIDTH)


class TerminalProgress:
    """Stages as headings, notes as lines, countable work as a bar with the time left."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._number = 0
        self._heading = ""
        self._began = time.monotonic()

    def _clock(self) -> str:
        return f"{time.monotonic() - self._began:8.1f} s " if VERBOSITY.verbose else ""

    def _show_heading(self) -> None:
        if self._heading:
            NOTES.print(f"{self._clock()}{self._heading}")
            self._heading = ""

    def stage(self, name: str) -> None:
        """A numbered heading, shown with the first thing that the stage has to tell."""
        self._number += 1
        self._heading = f"[bold cyan]{self._number:>2}  {name}[/]"

    def note(self, text: str) -> None:
        """An indented line."""
        self._show_heading()
        NOTES.print(f"{self._clock()}    {text}", markup=False)

    def start(self, title: str, total: int, *, done: int = 0) -> None:
        """Show a bar."""
        self._show_heading()
        self._bar = Progress(
            TextColumn("    {task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[detail]}"),
            console=NOTES,
            transient=True,
            disable=VERBOSITY.quiet,
        )
        self._task = self._bar.add_task(title, total=total, completed=done, detail="")
        self._bar.start()

    def advance(self, detail: str = "") -> None:
        """One unit further; an empty detail keeps the last one."""
        if self._bar is not None:
            self._bar.advance(self._task)
            if detail:
                self._bar.update(self._task, detail=detail)

    def finish(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def print_table(
    title: str, rows: Iterable[dict[str, str]], headings: dict[str, str], *, text: Collection[str] = ()
) -> None:
    """A table on stdout: `headings` maps the keys of each row to column titles.

    The first column and those named in `text` are aligned to the left.
    """
    table = Table(
        title=escape(title) if title else None,
        title_justify="left",
        header_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1),
    )
    for position, (key, heading) in enumerate(headings.items()):
        left = position == 0 or key in text
        table.add_column(heading, justify="left" if left else "right", no_wrap=position < 2)
    for row in rows:
        table.add_row(*(escape(row[key]) for key in headings))
    ANSWER.print(table)
