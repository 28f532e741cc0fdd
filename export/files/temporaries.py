"""Files and folders on their way to becoming an output: beside it, under a name of their own, swept when left behind.

A temporary is called ``.NAME.<16 hexadecimal digits>.tmp``. Its writer holds a lock on it, which the system drops
when the process ends, however it ends. So the next writer of the same output can tell what a killed one left from
what another one is writing now, whatever machine or container that process ran in.
"""

import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

if sys.platform != "win32":
    import fcntl

_DIGITS = 16


@contextmanager
def temporary_file(path: Path) -> Iterator[IO[bytes]]:
    """A new file beside `path` to write, read and seek in; it is removed at the end unless it was renamed.

    Raises:
        OSError: The folder is missing, read-only or full.
    """
    sweep(path)
    file = _new_file(path)
    try:
        with file:
            yield file
    finally:
        Path(file.name).unlink(missing_ok=True)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A new, empty folder beside `path`; it is removed at the end, with all that is in it, unless it was renamed.

    Raises:
        OSError: As above.
    """
    sweep(path)
    folder, lock = _new_folder(path)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(lock)


def set_aside(path: Path) -> Path:
    """Where a folder may wait while another one takes its place; `sweep` puts it back if nothing did."""
    return path.with_name(f".{path.name}.{secrets.token_hex(_DIGITS // 2)}.old")


def sweep(path: Path) -> None:
    """Remove what killed writers of one output left beside it, and put back a folder that one of them set aside."""
    _sweep(path.parent, re.escape(path.name))


def sweep_inside(folder: Path) -> None:
    """Remove what killed writers of any file in a folder left there."""
    _sweep(folder, ".+")


def _sweep(folder: Path, name: str) -> None:
    ours = re.compile(rf"\.({name})\.[0-9a-f]{{{_DIGITS}}}\.(tmp|old)", re.DOTALL)
    with suppress(OSError):  # a folder that cannot be read: the writer will say more
        for entry in sorted(folder.iterdir()):
            found = ours.fullmatch(entry.name)
            if found is not None:
                with suppress(OSError):
                    _remove_unless_in_use(entry, folder / found[1] if found[2] == "old" else None)


def _remove_unless_in_use(entry: Path, place: Path | None) -> None:
    """Remove what nobody holds a lock on; what was set aside goes back to its place if that is free."""
    if sys.platform == "win32":  # no locks: what is open cannot be removed there, folders are left alone
        if not entry.is_dir():
            entry.unlink()
        return

    if entry.is_symlink():
        return
    descriptor = os.open(entry, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an OSError where it is in use
        if place is not None and not place.exists():
            entry.rename(place)
        elif entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()
    finally:
        os.close(descriptor)


def _new_file(path: Path) -> IO[bytes]:
    while True:
        file = _name_for(path).open("x+b")
        _lock(file.fileno())
        if Path(file.name).exists():  # else swept by another writer before it was locked
            return file
        file.close()


def _new_folder(path: Path) -> tuple[Path, int | None]:
    while True:
        folder = _name_for(path)
        folder.mkdir()
        with suppress(FileNotFoundError):  # swept, as above
            lock = lock_folder(folder)
            if folder.exists():
                return folder, lock
            _unlock(lock)


def _name_for(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(_DIGITS // 2)}.tmp")


def lock_folder(folder: Path) -> int | None:
    """A descriptor that holds the lock of a folder until it is closed; None where folders have none.

    Raises:
        FileNotFoundError: It is gone.
    """
    if sys.platform == "win32":
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    _lock(descriptor)
    return descriptor


def _lock(descriptor: int) -> None:
    if sys.platform != "win32":
        with suppress(OSError):  # a file system without locks: nothing is swept there
            fcntl.flock(descriptor, fcntl.LOCK_EX)


def _unlock(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
