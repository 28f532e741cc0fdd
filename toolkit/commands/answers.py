"""What a command answers: on stdout, for people or as JSON. Progress and notes go to stderr, see `console`."""

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

from modelpress.toolkit.commands.saying import say, say_line
from modelpress.toolkit.commands.verbosity import VERBOSITY


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
    say(json.dumps(facts, indent=2))


def answer_line(text: str, facts: Any, *, as_json: bool) -> None:
    """`answer` with one line for people, which is never broken or styled."""
    answer(facts, lambda: say_line(text), as_json=as_json)
