"""What people see in a terminal: answers on stdout, so that they can be piped; progress and notes on stderr."""

import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from modelpress.export.safe_text import for_terminal
from modelpress.toolkit.commands.table_layout import Headings, Row, lay_out, terminal_width
from modelpress.toolkit.commands.verbosity import VERBOSITY


class _Safe(Console):
    """Text of strangers steers no terminal."""

    def print(self, *objects: Any, **style: Any) -> None:
        """As rich's."""
        super().print(*(for_terminal(o, lines=True) if isinstance(o, str) else o for o in objects), **style)


class _Notes(_Safe):
    """Silent where errors only are wanted."""

    def print(self, *objects: Any, **style: Any) -> None:
        """As rich's."""
        if not VERBOSITY.quiet:
            super().print(*objects, **style)


ANSWER = _Safe(highlight=False)
NOTES = _Notes(stderr=True, highlight=False)


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
        NOTES.print(f"{self._clock()}    {for_terminal(text)}", markup=False, soft_wrap=True)

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
                self._bar.update(self._task, detail=escape(for_terminal(detail)))

    def finish(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def print_table(
    title: str,
    rows: Iterable[Row],
    headings: Headings,
    *,
    narrow: Sequence[Headings] = (),
    text: Collection[str] = (),
    wide: bool = False,
) -> None:
    """A table on stdout that fits the terminal.

    Args:
        title: Above it; may be empty.
        rows: Cells by key.
        headings: Titles of the columns by key, from left to right.
        narrow: Choices of fewer columns, each barer than the one before, where that is too wide.
        text: Columns of words, besides the first one.
        wide: All columns, uncut, however wide the terminal is; commands that pass `narrow` have it as ``--wide``.
    """
    layout = lay_out(rows, [headings, *narrow], text=text, width=None if wide else terminal_width())
    if title:
        answer_line(title, style="italic")

    heading, *lines = layout.lines
    answer_line(heading, style="bold")
    answer_line("─" * max(map(cell_len, layout.lines)))
    for line in lines:
        answer_line(line)

    answer_line("")
    if layout.left_out:
        NOTES.print(
            f"--wide shows more: {', '.join(layout.left_out)}", markup=False, style="dim", soft_wrap=True
        )


def answer_line(text: str, *, style: str | None = None) -> None:
    """A line on stdout that is never broken or cropped: who reads it may be a program."""
    ANSWER.print(for_terminal(text), style=style, markup=False, soft_wrap=True)
