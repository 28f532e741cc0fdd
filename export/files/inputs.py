"""Every file that a user names is opened here, so that a pipe or a device is refused and not waited for."""

import os
import stat
from pathlib import Path
from typing import IO

from modelpress.export.errors import InputError

_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # opening a pipe would wait for its writer


def open_input(path: Path) -> IO[bytes]:
    """A regular file, open for reading.

    Raises:
        InputError: It cannot be read, or is a folder, a pipe, a device or the like.

    Example:
        >>> open_input(Path("/dev/null"))
        Traceback (most recent call last):
        modelpress.export.errors.InputError: /dev/null: is no regular file (a device); copy its content into one
    """
    try:
        # looked at before it is opened: opening may already do something to a device
        check_regular(path)
        file = open(path, "rb", opener=_opened)  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the name
        raise InputError(f"{str(path)!r}: cannot be read: {error}") from error

    try:
        _check_mode(
            path, os.fstat(file.fileno()).st_mode
        )  # of what was opened, should it have been exchanged
    except BaseException:
        file.close()
        raise
    return file


def read_input(path: Path, *, most: int | None = None) -> bytes:
    """All bytes of a regular file.

    Args:
        path: Of the file.
        most: Refuse a file with more bytes.

    Raises:
        InputError: As `open_input`, or it is longer.
    """
    with open_input(path) as file:
        try:
            data = file.read() if most is None else file.read(most + 1)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    if most is not None and len(data) > most:
        raise InputError(f"{path}: has more than {most:,} bytes; a file of this kind has not")
    return data


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder; false where it cannot be looked at, which opening it will tell.

    Example:
        >>> is_folder(Path("/")), is_folder(Path("a\\0b"))
        (True, False)
    """
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long a name, for one; a NUL in it
        return False


def check_regular(path: Path) -> None:
    """Refuse what is there and no regular file, for readers that open a path themselves.

    Raises:
        InputError: As said.
        OSError: It cannot be looked at; a missing file as well.
    """
    _check_mode(path, path.stat().st_mode)


def _check_mode(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: cannot be read: is a folder, expected a file")
    what = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
    raise InputError(f"{path}: is no regular file ({what}); copy its content into one")


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | _NO_WAIT)
