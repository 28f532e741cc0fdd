"""Write a whole file or nothing; every output of this project is written here, or by `atomic_folder`."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

from modelpress.export.errors import InputError
from modelpress.export.files.places import check_place
from modelpress.export.files.temporaries import temporary_file

T = TypeVar("T")


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
    early, an interrupt included, removes the temporary file and leaves the old one untouched. What a killed
    process left behind is removed by the next writer of the same path.

    Raises:
        InputError: The folder is missing, read-only or full, or `path` is a device, pipe or socket. Any `OSError`
            inside the block counts as that.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_writer(Path(folder) / "numbers.bin") as file:
        ...         _ = file.write(b"12")
        ...     (Path(folder) / "numbers.bin").read_bytes()
        b'12'
    """
    path = Path(path)
    check_place(path)
    with staged(temporary_file(path), path) as file:
        yield file

        file.flush()
        os.fsync(file.fileno())
        if os.name == "nt":  # what is open has no other name there
            file.close()
        Path(file.name).replace(path)  # before the lock on it is dropped

    flush_folder(path.parent)


def check_writable(path: Path) -> None:
    """Try whether a file can be written there, without touching it.

    Raises:
        InputError: It cannot.
    """
    check_place(path)
    with staged(temporary_file(path), path):
        pass


@contextmanager
def staged(temporary: AbstractContextManager[T], target: Path) -> Iterator[T]:
    """A temporary on its way to becoming `target`; what the system objects to is told in terms of the target.

    Raises:
        InputError: The temporary cannot be made, or what is done with it fails.
    """
    what = f"{target}: cannot write in {target.parent}"
    try:
        with temporary as made:
            what = f"{target}: cannot be written"
            yield made
    except OSError as error:
        raise InputError(f"{what}: {error.strerror or error}") from error


def flush_folder(folder: Path) -> None:
    """Make the names in a folder last."""
    if os.name == "nt":  # folders cannot be opened there
        return
    with suppress(OSError):  # the file is in place already; some folders may be written but not read
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
