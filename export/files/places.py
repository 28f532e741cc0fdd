"""Where an output may go: what is no file is not replaced by one, and nothing is written over what is read."""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from modelpress.export.errors import InputError


def check_place(path: Path) -> None:
    """Refuse a device, pipe or socket as the place of a file: it would be replaced, not written to.

    Raises:
        InputError: It is one.

    Example:
        >>> check_place(Path("new.bin"))
    """
    with suppress(OSError):  # nothing there, or nothing that can be looked at: writing tells more
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise InputError(
                f"{path} is a device, pipe or socket, and a new file would take its place; choose another --output"
            )


def check_not_read(output: Path, inputs: Iterable[Path]) -> None:
    """Refuse an output that is one of the files read, under whatever name.

    Raises:
        InputError: It is.

    Example:
        >>> check_not_read(Path("a.press"), [Path("a.onnx")])
        >>> check_not_read(Path("/"), [Path("/.")])
        Traceback (most recent call last):
        modelpress.export.errors.InputError: / is what is read; writing it would destroy it; choose another --output
    """
    for path in inputs:
        if _same(output, path):
            raise InputError(
                f"{output} is what is read; writing it would destroy it; choose another --output"
            )


def check_not_around(folder: Path, path: Path) -> None:
    """Refuse to replace a whole folder that a file read lies in.

    Raises:
        InputError: It does.
    """
    if _is_inside(path, folder):
        raise InputError(
            f"{path} is read and lies in {folder}/, which would be replaced; choose another --output"
        )


def _same(one: Path, other: Path) -> bool:
    """Links and other spellings included; what is not there is nothing's equal."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False


def _is_inside(path: Path, folder: Path) -> bool:
    try:
        return folder.is_dir() and Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents
    except (OSError, ValueError):
        return False
