"""Some rows of the array in an `.npy` or `.npz` file, without the others ever being in memory together.

A compressed file of a few megabytes may hold gigabytes: the header says how many, before anything is unpacked.
"""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Literal, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import InputError
from modelpress.export.files.inputs import open_input

Array = npt.NDArray[np.generic]
ChooseRows = Callable[[int], npt.NDArray[np.int64]]
MAX_KEPT_BYTES = 1 << 30  # of all rows asked for, as float32, which they become
MAX_UNPACKED_BYTES = 4 << 30  # of the whole array, which is unpacked up to the last row asked for
_BLOCK_BYTES = 4 << 20
_NPZ_NAMES = ("images", "inputs")
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may need any amount of memory
_NPY_MAGIC = b"\x93NUMPY"


class _Header(NamedTuple):
    """What precedes the numbers of an array."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[np.generic]

    @property
    def row_bytes(self) -> int:
        return prod(self.shape[1:]) * self.dtype.itemsize


def read_rows(path: Path, choose: ChooseRows) -> Array:
    """The rows of a file's array that `choose` wants, in its order.

    Args:
        path: An ``.npy`` file, or an ``.npz`` file with one array, or one called ``images`` or ``inputs``.
        choose: From the number of rows to the indices of those wanted, ascending.

    Raises:
        InputError: It cannot be read, is no NumPy file of numbers, holds several arrays of which none is the obvious
            one, or more than is taken.
    """
    with open_input(path) as file, named_errors(path):
        is_array = file.read(len(_NPY_MAGIC)) == _NPY_MAGIC
        file.seek(0)
        return _of_stream(path, file, choose) if is_array else _of_archive(path, file, choose)


def read_named(path: Path) -> dict[str, Array]:
    """All arrays of an ``.npz`` file, by name.

    Raises:
        InputError: It cannot be read, is no such file, or holds more than is taken.
    """
    with open_input(path) as file, named_errors(path), zipfile.ZipFile(file) as archive:
        arrays: dict[str, Array] = {}
        left = MAX_KEPT_BYTES
        for entry in archive.infolist():
            with plain_entry(path, archive, entry) as stream:
                array = read_whole(stream, most=left)
                if array is None:
                    raise InputError(f"{path}: holds more than the {MAX_KEPT_BYTES:,} bytes that are taken")
                left -= array.nbytes
                arrays[entry.filename.removesuffix(".npy")] = array

        return arrays


@overload
def read_whole(stream: IO[bytes]) -> Array: ...
@overload
def read_whole(stream: IO[bytes], *, most: int) -> Array | None: ...
def read_whole(stream: IO[bytes], *, most: int | None = None) -> Array | None:
    """The array that a stream holds; None where its header declares more than so many bytes.

    Raises:
        ValueError: It is damaged, or holds no plain numbers.
    """
    header = _read_header(stream)
    n_bytes = prod(header.shape) * header.dtype.itemsize
    if most is not None and n_bytes > most:
        return None
    order: Literal["C", "F"] = "F" if header.fortran_order else "C"
    return np.frombuffer(_exactly(stream, n_bytes), header.dtype).reshape(header.shape, order=order)


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Say of whatever a damaged file leads to which file it is."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise InputError(f"{path}: its arrays, as their headers claim, do not fit into memory") from error
    except ValueError as error:  # not in NumPy's words, which advise to load pickled objects
        raise InputError(
            f"{path}: is no NumPy file of plain numbers, or damaged; write it with numpy.save"
        ) from error
    except Exception as error:  # zipfile and its decompressors raise whatever damaged data lead to
        raise InputError(
            f"{path}: is no NumPy file that can be read: {error}; write it with numpy.save"
        ) from error


def plain_entry(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> IO[bytes]:
    """An entry of an archive, unpacked while it is read.

    Raises:
        InputError: It is compressed in a way that may need any amount of memory.
    """
    if entry.compress_type not in _PLAIN:
        raise InputError(f"{path}: is not compressed by deflate; write it with numpy.savez_compressed")
    return archive.open(entry)


def _of_archive(path: Path, file: IO[bytes], choose: ChooseRows) -> Array:
    with zipfile.ZipFile(file) as archive:
        stored = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        names = [name for name in _NPZ_NAMES if name in stored] or list(stored)
        if len(names) != 1:
            raise InputError(
                f"{path}: holds {len(stored)} arrays ({', '.join(list(stored)[:8])}{', …' * (len(stored) > 8)}); "
                f"expected one, or one called {_NPZ_NAMES[0]}"
            )

        with plain_entry(path, archive, stored[names[0]]) as stream:
            return _of_stream(path, stream, choose)


def _of_stream(path: Path, stream: IO[bytes], choose: ChooseRows) -> Array:
    header = _read_header(stream)
    if len(header.shape) < 2 or not prod(header.shape):
        raise InputError(f"{path}: shape {header.shape}; expected inputs along the first axis, at least one")

    n_rows, row_bytes = header.shape[0], header.row_bytes
    if n_rows * row_bytes > MAX_UNPACKED_BYTES:
        raise InputError(
            f"{path}: holds {n_rows * row_bytes:,} bytes; up to {MAX_UNPACKED_BYTES:,} are read: save fewer inputs"
        )
    wanted = choose(n_rows)
    kept = n_rows if header.fortran_order else len(wanted)
    kept_bytes = kept * prod(header.shape[1:]) * max(header.dtype.itemsize, 4)
    if kept_bytes > MAX_KEPT_BYTES:
        raise InputError(
            f"{path}: {kept:,} inputs of shape {header.shape[1:]} take {kept_bytes:,} bytes; "
            f"up to {MAX_KEPT_BYTES:,} are taken: use fewer of them"
        )

    if header.fortran_order:  # its rows lie everywhere
        data = _exactly(stream, n_rows * row_bytes)
        return np.frombuffer(data, header.dtype).reshape(header.shape, order="F")[wanted]
    return _picked(stream, header, wanted)


def _picked(stream: IO[bytes], header: _Header, wanted: npt.NDArray[np.int64]) -> Array:
    """The wanted rows, read in blocks."""
    rows = np.empty((len(wanted), *header.shape[1:]), header.dtype)
    at_once = max(_BLOCK_BYTES // header.row_bytes, 1)
    start = done = 0
    while done < len(wanted):
        n = min(at_once, header.shape[0] - start)
        block = np.frombuffer(_exactly(stream, n * header.row_bytes), header.dtype).reshape(
            n, *header.shape[1:]
        )
        inside = wanted[done : np.searchsorted(wanted, start + n)] - start
        rows[done : done + len(inside)] = block[inside]
        start, done = start + n, done + len(inside)
    return rows


def _read_header(stream: IO[bytes]) -> _Header:
    """Raises ValueError where there is none, or one of an array of Python objects."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    header = _Header(*read(stream))
    if header.dtype.hasobject or not header.dtype.itemsize or min(header.shape, default=0) < 0:
        raise ValueError("no plain numbers")
    return header


def _exactly(stream: IO[bytes], n_bytes: int) -> bytes:
    """Raises ValueError where fewer bytes are left."""
    data = stream.read(n_bytes)
    if len(data) != n_bytes:
        raise ValueError("truncated")
    return data
