"""Where an output may go: what is no file is not replaced by one, and nothing is written over what is read."""

import os
import stat
from collections.abc import Callable, Iterable, Sequence
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


def check_folder_place(
    folder: Path, strangers: Callable[[Path], Sequence[str]], *, kind: str, overwrite: bool
) -> None:
    """Make sure that a new folder may take this place, before the work for it starts.

    Args:
        folder: Where it is to be.
        strangers: What lies in a folder that is there and belongs to none of this kind.
        kind: For people, as in "a bundle"; only such a folder is replaced.
        overwrite: Whether one may be.

    Raises:
        InputError: Something is there that is not to be replaced, or the path cannot be looked at.
    """
    if not folder.name:
        raise InputError(f"{folder} cannot be replaced; --output names a folder of its own")
    try:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise InputError(f"{folder} is there and no folder; choose another --output")
        if not folder.is_dir() or not any(folder.iterdir()):
            return
        if not overwrite:
            raise InputError(
                f"{folder}/ is not empty; pass --overwrite to replace it, or choose another --output"
            )
        others = strangers(folder)
    except OSError as error:  # too long a name, a folder that may not be entered
        raise InputError(f"{folder}: cannot be used: {error.strerror}; choose another --output") from error

    if others:
        raise InputError(
            f"{folder}/ holds {others[0]}, which is no part of {kind}, and is not replaced; choose another --output"
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
