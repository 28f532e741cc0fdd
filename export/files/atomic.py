"""Write a whole file or nothing."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from modelpress.export.errors import InputError


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` with `data`; a crash at any moment leaves the old file or the new one.

    Raises:
        InputError: The folder is missing, read-only or full; the old file is untouched.
    """
    with atomic_writer(path) as file:
        file.write(data)


@contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write, read and seek in, which becomes `path` when the block ends well.

    The bytes go to a temporary file of the same folder (exclusive name, ``file.name``), are flushed to the
    device, and take the final name in one rename; then the folder itself is flushed. Whatever ends the block
    early, an interrupt included, removes the temporary file and leaves the old one untouched.

    Raises:
        InputError: The folder is missing, read-only or full. Any `OSError` inside the block counts as that.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_writer(Path(folder) / "numbers.bin") as file:
        ...         _ = file.write(b"12")
        ...     (Path(folder) / "numbers.bin").read_bytes()
        b'12'
    """
    path = Path(path)
    try:
        file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed below, before the rename
            mode="w+b", prefix=f".{path.name}.", suffix=".tmp", dir=path.parent, delete=False
        )
    except OSError as error:
        raise InputError(f"{path}: cannot write in {path.parent}: {error.strerror}") from error

    temporary = Path(file.name)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)

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
