"""Write a whole folder or nothing."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelpress.export.files.atomic import flush_folder, staged
from modelpress.export.files.temporaries import lock_folder, set_aside, temporary_folder

_HERE = -100  # AT_FDCWD: names are relative to the working folder
_EXCHANGE = 2  # RENAME_EXCHANGE


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes `target` when the block ends well; what was there goes.

    On Linux old and new change places in one step. Elsewhere the old folder is set aside first; if the process is
    killed between the two renames, the next writer of the same folder puts it back. Whatever ends the block early
    removes the new folder and leaves the old one.

    Raises:
        InputError: It cannot be written.
    """
    with staged(temporary_folder(target), target) as folder:
        yield folder

        _flush(folder)
        if not target.is_dir():
            folder.rename(target)
        elif not _exchange(folder, target):
            _replace_in_two_steps(folder, target)

    flush_folder(target.parent)


def _flush(folder: Path) -> None:
    """Every file to the device, before the folder takes its name."""
    for path, _, names in os.walk(folder):
        for name in names:
            with Path(path, name).open("rb+") as file:
                os.fsync(file.fileno())
        flush_folder(Path(path))


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where the system or its file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return rename is not None and not rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE)


def _replace_in_two_steps(new: Path, target: Path) -> None:
    """Two renames; the old folder is put back if the second fails."""
    old = set_aside(target)
    lock = lock_folder(target)  # nobody sweeps it meanwhile
    try:
        target.rename(old)
        try:
            new.rename(target)
        except OSError:
            old.rename(target)
            raise
        old.rename(new)  # which is removed at the end
    finally:
        if lock is not None:
            os.close(lock)
