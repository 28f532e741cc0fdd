"""Stop at a safe point when asked to."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):  # noqa: N818 - not an error
    """Work was stopped on request; its state is saved."""


class StopRequest:
    """Whether somebody asked to stop."""

    def __init__(self) -> None:
        self.pending = False


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C or SIGTERM into a request; a second one stops at once, by a KeyboardInterrupt."""
    request = StopRequest()
    previous = {}

    # only a flag: what is being computed goes on to the next safe point
    def note(number: int, frame: FrameType | None) -> None:
        request.pending = True
        for each in _SIGNALS:
            signal.signal(each, signal.default_int_handler)

    try:
        previous = {number: signal.signal(number, note) for number in _SIGNALS}
    except ValueError:  # not the main thread: signals are somebody else's
        previous = {}

    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
