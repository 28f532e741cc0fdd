"""The one way in which commands print: whatever strangers wrote into a file, it steers no terminal."""

import typer

from modelpress.export.safe_text import for_terminal


def say(text: str, *, err: bool = False, end: str = "\n") -> None:
    """Lines of text on stdout or stderr."""
    typer.echo(for_terminal(text, lines=True) + end, nl=False, err=err)


def say_line(text: str, *, err: bool = False) -> None:
    """One line, whatever it holds."""
    say(for_terminal(text), err=err)
