"""A file as read-only memory, of which only the pages in use cost anything."""

import mmap
import os
from pathlib import Path

from modelpress.export.errors import InputError
from modelpress.export.files.inputs import open_input


class MappedFile:
    """A whole file, mapped.

    Attributes:
        path: Of the file.
        data: All bytes. Views into them stay valid as long as they are used.

    Raises:
        InputError: It cannot be read, is empty, or is no regular file.
    """

    data: memoryview

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open_input(path) as file:
                self.data = memoryview(self._map(path, file.fileno()))
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error

    def __len__(self) -> int:
        return len(self.data)

    def forget_pages(self) -> None:
        """Let the system take back the pages read so far; they are read again when needed."""
        if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows, where nothing needs to be done
            self._mapping.madvise(mmap.MADV_DONTNEED)

    def _map(self, path: Path, descriptor: int) -> mmap.mmap:
        if not os.fstat(descriptor).st_size:
            raise InputError(f"{path}: is empty")
        self._mapping = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        return self._mapping
