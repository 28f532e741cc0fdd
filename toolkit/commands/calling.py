"""What every command has beside its own options and work.

``-q``, ``-v``; no folder left by a call that fails at once; nothing written over what is read; an end on request.
"""

import functools
import inspect
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from modelpress.export.files.places import check_not_read
from modelpress.toolkit.commands.verbosity import VERBOSITY
from modelpress.toolkit.output_folder import leaving_no_folder

Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Tell errors only, and the answer.")]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Tell the seconds of each step, and where an error arose.")
]
_EXTRA = {"quiet": Quiet, "verbose": Verbose}
_OUTPUTS = ("output", "plot")  # the options that name what is written


def prepared(function: Callable[..., None]) -> Callable[..., None]:
    """The function of a command with the options of all commands added to its signature."""

    @functools.wraps(function)
    def call(*, quiet: bool, verbose: bool, **options: Any) -> None:
        VERBOSITY.ask(quiet=quiet, verbose=verbose)
        outputs = [path for key in _OUTPUTS if isinstance(path := options.get(key), Path)]
        for output in outputs:
            check_not_read(output, inputs_among(options))

        with ExitStack() as around:
            around.enter_context(ended_like_an_interrupt())
            for output in outputs:
                around.enter_context(leaving_no_folder(output))
            if "timeout" in options:
                # loaded here: most commands have no use for it
                from modelpress.export.isolation.foreign import foreign_work

                around.enter_context(foreign_work(options["timeout"]))
            function(**options)

    own = inspect.signature(function, eval_str=True)
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in _EXTRA.items()
    ]
    vars(call)["__signature__"] = own.replace(parameters=[*own.parameters.values(), *extra])
    call.__annotations__ = {**function.__annotations__, **_EXTRA}
    return call


def inputs_among(options: Mapping[str, Any]) -> list[Path]:
    """Every path that a command reads: all that are given but the outputs; ``NAME=PATH`` included.

    Example:
        >>> [str(path) for path in inputs_among({"file": Path("a"), "inputs": ["x=b.npy"], "output": Path("c")})]
        ['a', 'b.npy']
    """
    given = [value for key, value in options.items() if key not in _OUTPUTS]
    flat = [item for value in given for item in (value if isinstance(value, list) else [value])]
    named = [Path(item.partition("=")[2]) for item in flat if isinstance(item, str) and "=" in item]
    return [*(item for item in flat if isinstance(item, Path)), *named]


@contextmanager
def ended_like_an_interrupt() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: with an exception, so that everything is put in order."""
    try:
        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not the main thread: signals are somebody else's
        yield
        return

    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
