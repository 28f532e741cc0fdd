"""A process that dies by SIGKILL at a chosen step of its writing: only in tests, nothing of it is in the product.

A step is an `open` for writing, `write`, `fsync`, `rename` (also of two folders that change places), `mkdir`, `unlink`
or `rmdir` in one folder. Linux only.
"""

import builtins
import io
import os
import signal
from collections import Counter
from pathlib import Path

from modelpress.export.files import atomic_folder

MOMENTS = ("before", "half", "after")  # of the step; what cannot be done by half is done
_PATH_STEPS = {
    "rename": ("rename", "replace"),
    "unlink": ("unlink", "remove"),
    "mkdir": ("mkdir",),
    "rmdir": ("rmdir",),
}


class Steps:
    """Counts the steps in a folder; dies at one if told to.

    Args:
        folder: Steps elsewhere do not count.
        kind: Of the step to die at; None for never.
        number: Which of its kind, from 1.
        moment: One of `MOMENTS`.
    """

    def __init__(self, folder, kind=None, number=0, moment="before"):
        self.folder, self.kind, self.number, self.moment = folder, kind, number, moment
        self.counts = Counter()

    def install(self):
        """For the rest of this process."""
        real = builtins.open

        def opened(file, mode="r", *more, **named):
            if set(mode).isdisjoint("wxa+") or not self._is_here(file):
                return real(file, mode, *more, **named)
            raw = self.step("open", lambda: _Raw(self, file, mode.translate({98: None, 116: None})))
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            if "b" in mode:
                return buffered
            given = {**dict(zip(("buffering", "encoding", "errors", "newline"), more, strict=False)), **named}
            return io.TextIOWrapper(buffered, *(given.get(key) for key in ("encoding", "errors", "newline")))

        builtins.open = io.open = opened
        for kind, functions in _PATH_STEPS.items():
            for name in functions:
                setattr(os, name, self._stepping(kind, getattr(os, name)))
        fsync, exchange = os.fsync, atomic_folder._exchange
        os.fsync = lambda descriptor: self.step("fsync", lambda: fsync(descriptor))
        atomic_folder._exchange = lambda one, other: self.step("rename", lambda: exchange(one, other))

    def _stepping(self, kind, function):
        def call(path, *arguments, dir_fd=None, **named):
            if dir_fd is not None:
                named["dir_fd"] = dir_fd
            folder = Path() if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}").readlink()
            if not self._is_here(folder / path):
                return function(path, *arguments, **named)
            return self.step(kind, lambda: function(path, *arguments, **named))

        return call

    def _is_here(self, file):
        if isinstance(file, int):
            return False
        return Path(file).absolute().is_relative_to(self.folder)

    def step(self, kind, do, do_half=None):
        """Do something, and die before, in the middle or after it if it is the chosen step."""
        self.counts[kind] += 1
        if kind != self.kind or self.counts[kind] != self.number:
            return do()
        try:
            if self.moment != "before":
                (do_half if do_half is not None and self.moment == "half" else do)()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("dead")


class _Raw(io.FileIO):
    """A file whose every write is a step."""

    def __init__(self, steps, file, mode):
        super().__init__(file, mode)
        self._steps, self.name = steps, str(Path(file))

    def write(self, data):
        def half():
            view = memoryview(data).cast("B")
            return super(_Raw, self).write(view[: len(view) // 2])

        return self._steps.step("write", lambda: super(_Raw, self).write(data), half)
