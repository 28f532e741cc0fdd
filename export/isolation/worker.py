"""The process that works on models from anywhere: one job after the other, until nobody asks any more.

    python -P -m modelpress.export.isolation.worker [MODULE ...]

The modules are loaded at once. A message in holds the name of a function and its arguments, the message back what it
returned or raised.
"""

import faulthandler
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from modelpress.export.errors import ModelpressError
from modelpress.export.isolation.messages import Array, Facts, receive, send

_GRACE_S = 2.0  # whoever asked ends this process; it ends itself only where that one is gone


def main() -> None:
    """Answer jobs from standard input."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    jobs = sys.stdin.buffer
    for module in sys.argv[1:]:
        importlib.import_module(module)

    while True:
        try:
            facts, arrays = receive(jobs)
        except EOFError:
            return
        _answer(answers, facts, arrays)


def _answer(answers: IO[bytes], facts: Facts, arrays: list[Array]) -> None:
    """Do one job; native code that never returns is ended too, by a thread that needs no interpreter."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - no path of the file system
        faulthandler.dump_traceback_later(facts["limit_s"] + _GRACE_S, exit=True, file=nowhere)
        try:
            with _limited_memory(facts["memory_bytes"]):
                found, made = _done(facts["job"], facts["facts"], arrays)
            send(answers, {"found": found}, made)
        except BrokenPipeError:
            raise
        except Exception as error:
            kind = type(error).__name__ if isinstance(error, ModelpressError) else ""
            send(answers, {"error": str(error) or type(error).__name__, "kind": kind})
        finally:
            faulthandler.cancel_dump_traceback_later()


@contextmanager
def _limited_memory(more_bytes: int | None) -> Iterator[None]:
    """Let this process grow by so many bytes and no further: what asks for more gets a MemoryError."""
    pages = Path("/proc/self/statm")
    if more_bytes is None or not pages.exists():  # other systems have no way to tell what is taken already
        yield
        return

    import resource

    taken = int(pages.read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = taken + more_bytes
    if before[0] != resource.RLIM_INFINITY:
        most = min(most, before[0])
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _done(job: str, facts: Facts, arrays: list[Array]) -> tuple[Facts, list[Array]]:
    module, _, name = job.partition(":")
    found: tuple[Facts, list[Array]] = getattr(importlib.import_module(module), name)(facts, arrays)
    return found


if __name__ == "__main__":
    main()
