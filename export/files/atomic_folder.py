"""Write a whole folder or nothing."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelpress.export.errors import InputError
from modelpress.export.files.atomic import flush_folder
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
    entered = False
    try:
        with temporary_folder(target) as staged:
            entered = True
            yield staged

            _flush(staged)
            if not target.is_dir():
                staged.rename(target)
            elif not _exchange(staged, target):
                _replace_in_two_steps(staged, target)
    except OSError as error:
        where = "" if entered else f" in {target.parent}"
        raise InputError(
            f"{target}: cannot {'be written' if entered else 'write'}{where}: {error.strerror or error}"
        ) from error

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


def _replace_in_two_steps(staged: Path, target: Path) -> None:
    """Two renames; the old folder is put back if the second fails."""
    old = set_aside(target)
    lock = lock_folder(target)  # nobody sweeps it meanwhile
    try:
        target.rename(old)
        try:
            staged.rename(target)
        except OSError:
            old.rename(target)
            raise
        old.rename(staged)  # which is removed at the end
    finally:
        if lock is not None:
            os.close(lock)
