"""Write a whole file or nothing."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from export.errors import InputError


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` with `data`; a crash at any moment leaves the old file or the new one.

    The bytes go to a temporary file of the same folder (exclusive name), are flushed to the device,
    and take the final name in one rename; then the folder itself is flushed.

    Raises:
        InputError: The folder is missing, read-only or full; the old file is untouched.
    """
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot write in {path.parent}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot write {len(data):,} bytes: {error.strerror}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    _flush_folder(path.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    with suppress(OSError):  # the file is in place already; some folders may be written but not read
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
