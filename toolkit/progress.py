"""What long work tells while it runs; the command line draws it, tests ignore it."""

import sys
from typing import Protocol


class Progress(Protocol):
    """Receives progress; every method returns at once."""

    def stage(self, name: str) -> None:
        """A new stage of the run begins."""

    def note(self, text: str) -> None:
        """A finding worth a line."""

    def start(self, title: str, total: int, *, done: int = 0) -> None:
        """Countable work begins."""

    def advance(self, detail: str = "") -> None:
        """One unit is done."""

    def finish(self) -> None:
        """Countable work ends."""


class Silent:
    """Tells nobody."""

    def stage(self, name: str) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""

    def start(self, title: str, total: int, *, done: int = 0) -> None:
        """Ignored."""

    def advance(self, detail: str = "") -> None:
        """Ignored."""

    def finish(self) -> None:
        """Ignored."""


class Notes(Silent):
    """Findings as lines on stderr, such as one an epoch; for scripts and notebooks."""

    def note(self, text: str) -> None:
        """A line."""
        print(text, file=sys.stderr, flush=True)
