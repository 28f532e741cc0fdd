"""What every command has beside its own options: ``-q``, ``-v``, and no folder left by a call that fails at once."""

import functools
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from modelpress.toolkit.commands.verbosity import VERBOSITY
from modelpress.toolkit.output_folder import leaving_no_folder

Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Tell errors only, and the answer.")]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Tell the seconds of each step, and where an error arose.")
]
_EXTRA = {"quiet": Quiet, "verbose": Verbose}


def prepared(function: Callable[..., None]) -> Callable[..., None]:
    """The function of a command with the options of all commands added to its signature."""

    @functools.wraps(function)
    def call(*, quiet: bool, verbose: bool, **options: Any) -> None:
        VERBOSITY.ask(quiet=quiet, verbose=verbose)
        output = options.get("output")
        with ExitStack() as around:
            if isinstance(output, Path):
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
