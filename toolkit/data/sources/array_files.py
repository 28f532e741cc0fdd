"""Arrays in ``.npz`` or ``.npy`` files, mapped into memory where they are stored plainly."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from modelpress.export.errors import InputError
from modelpress.export.files.inputs import open_input
from modelpress.toolkit.data.array_rows import MAX_KEPT_BYTES, named_errors, plain_entry, read_whole
from modelpress.toolkit.data.data_set import LABELS, Split
from modelpress.toolkit.data.options import DataOptions
from modelpress.toolkit.data.rows import Array, ChannelsFirst, Rows
from modelpress.toolkit.data.sources.found import Found, parts_of

_TARGETS = (LABELS, "targets", "label", "target", "y")
_SEVERAL = "targets."  # before the name of each of several targets
_SPLIT, _CLASSES = "split", "classes"
_CHANNELS = (1, 3, 4)
_LOCAL_HEADER = 30  # bytes of a zip entry's own header, before its name
INPUT = "inputs"


def is_array(source: str) -> bool:
    """Whether it is a NumPy file."""
    return source.lower().endswith((".npz", ".npy"))


def is_target(name: str) -> bool:
    """Whether an array of that name holds targets."""
    return name in _TARGETS or name.startswith(_SEVERAL)


def read_arrays(source: str, options: DataOptions) -> Found:
    """An ``.npy`` file and another of its targets, or an ``.npz`` file with both.

    In an archive the target is called ``labels`` or ``targets`` (several: ``targets.NAME``); ``split`` may say of each
    example which part it belongs to, ``classes`` what the classes are called; all other arrays are inputs, by name.

    Raises:
        InputError: A file cannot be read, arrays are missing, or they differ in length.
    """
    path = Path(source)
    if source.lower().endswith(".npy"):
        if options.labels is None:
            raise InputError(
                f"{source} holds inputs alone; give their targets, as in --set data.labels=labels.npy"
            )
        arrays: dict[str, Rows] = {INPUT: mapped(path), LABELS: mapped(Path(options.labels))}
    else:
        arrays = dict(archive(path))
    return _sorted_out(arrays, source)


def mapped(path: Path) -> Array:
    """The array of an ``.npy`` file, on the disk until its rows are asked for.

    Raises:
        InputError: It is no such file.
    """
    with open_input(path), named_errors(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("an archive")
        return array


def archive(path: Path) -> Mapping[str, Array]:
    """The arrays of an ``.npz`` file; those that are stored uncompressed stay on the disk.

    Raises:
        InputError: It is no such file, or compressed arrays are larger than is taken.
    """
    arrays: dict[str, Array] = {}
    left = MAX_KEPT_BYTES
    with open_input(path) as file, named_errors(path), zipfile.ZipFile(file) as stored:
        for entry in stored.infolist():
            name = entry.filename.removesuffix(".npy")
            if entry.compress_type == zipfile.ZIP_STORED and entry.file_size:
                arrays[name] = _mapped_entry(path, file, entry)
                continue
            left -= entry.file_size
            if left < 0:
                raise InputError(
                    f"{path}: its compressed arrays take more than {MAX_KEPT_BYTES:,} bytes; save them with "
                    "numpy.savez, uncompressed, and they are read from the disk"
                )
            with plain_entry(path, stored, entry) as stream:
                arrays[name] = read_whole(stream)
    return arrays


def _mapped_entry(path: Path, file: IO[bytes], entry: zipfile.ZipInfo) -> Array:
    file.seek(entry.header_offset)
    header = file.read(_LOCAL_HEADER)
    start = entry.header_offset + _LOCAL_HEADER + int.from_bytes(header[26:28], "little")
    start += int.from_bytes(header[28:30], "little")

    file.seek(start)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("no plain numbers")
    if not shape or not all(shape):
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran_order else "C")


def _sorted_out(arrays: dict[str, Rows], source: str) -> Found:
    split, classes = arrays.pop(_SPLIT, None), arrays.pop(_CLASSES, None)
    known = [name for name in arrays if is_target(name)]
    if not known or len(known) == len(arrays):
        raise InputError(
            f"{source} holds {', '.join(arrays) or 'nothing'}; expected inputs and an array called {LABELS} or targets"
        )
    targets = {name.removeprefix(_SEVERAL): np.asarray(arrays[name]) for name in known}
    inputs = {name: _channels_first(rows) for name, rows in arrays.items() if name not in known}

    lengths = {name: rows.shape[0] if rows.shape else 0 for name, rows in arrays.items()}
    if len(set(lengths.values())) > 1 or not min(lengths.values()):
        told = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise InputError(
            f"{source}: arrays have different lengths, or none: {told}; expected a row for each example"
        )
    if split is not None and split.shape != (next(iter(lengths.values())),):
        raise InputError(f"{source}: split has shape {split.shape}; expected a word for each example")

    return Found(
        Split(inputs, targets),
        () if classes is None else tuple(map(str, np.asarray(classes).tolist())),
        {} if split is None else parts_of(np.asarray(split), source),
    )


def _channels_first(rows: Rows) -> Rows:
    """Images as networks take them: the second axis is that of the channels."""
    if rows.dtype != np.uint8 or len(rows.shape) not in (3, 4):
        return rows
    if len(rows.shape) == 3:
        return ChannelsFirst(rows)
    last, second = rows.shape[3], rows.shape[1]
    return ChannelsFirst(rows) if last in _CHANNELS and second not in _CHANNELS else rows
