"""Inputs as a user gives them: arrays in files by the names of inputs, and shapes for arrays to be made of."""

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import InputError
from modelpress.export.files.inputs import open_input

Array = npt.NDArray[np.generic]
MOST_CALLS = 64  # of a folder; more show nothing new


@dataclass(frozen=True)
class ArrayFile:
    """An array on disk: an `.npy` file, or an entry of an `.npz` file."""

    path: Path
    entry: str = ""

    def __str__(self) -> str:
        return f"{self.path}[{self.entry}]" if self.entry else str(self.path)


@dataclass(frozen=True)
class Given:
    """What models are fed with, as far as the user says.

    Attributes:
        calls: Arrays by the names of inputs, for one call after the other.
        shapes: Of inputs for which arrays are made.
    """

    calls: tuple[Mapping[str, ArrayFile], ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def first(self) -> Mapping[str, ArrayFile]:
        """The first call; empty where none is given."""
        return self.calls[0] if self.calls else {}

    @property
    def names(self) -> list[str]:
        """Every input that anything is said about, and where."""
        return list(dict.fromkeys([*(name for call in self.calls for name in call), *self.shapes]))


NOTHING = Given()


def read_given(
    named: Mapping[str, Path],
    sources: Iterable[Path] = (),
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Given:
    """Find out which arrays there are; they are read when they are needed.

    Args:
        named: `.npy` files by the names of inputs; they belong to every call.
        sources: `.npz` files, each a call; or folders of such files, or of one `.npy` file for each input.
        shapes: By the names of inputs.

    Raises:
        InputError: One cannot be read, or holds nothing.
    """
    calls: list[dict[str, ArrayFile]] = []
    for source in sources:
        calls += _calls_in(source)

    always = {name: ArrayFile(path) for name, path in named.items()}
    if always and not calls:
        calls = [{}]
    return Given(tuple({**call, **always} for call in calls[:MOST_CALLS]), shapes or {})


def _calls_in(source: Path) -> list[dict[str, ArrayFile]]:
    try:
        if not source.is_dir():
            return [_entries(source)]
        archives = sorted(source.glob("*.npz"))
        arrays = sorted(source.glob("*.npy"))
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror or error}") from error

    if archives:
        return [_entries(path) for path in archives[:MOST_CALLS]]
    if arrays:
        return [{path.stem: ArrayFile(path) for path in arrays}]
    raise InputError(
        f"{source}: holds neither .npz files, one for each call, nor .npy files, one called like each input"
    )


def _entries(path: Path) -> dict[str, ArrayFile]:
    try:
        with open_input(path) as file, zipfile.ZipFile(file) as archive:
            names = [entry.filename.removesuffix(".npy") for entry in archive.infolist()]
    except BadZipFile as error:
        raise InputError(
            f"{path}: is no .npz file; an .npy file is given with the input's name: --input NAME={path}"
        ) from error
    if not names:
        raise InputError(f"{path}: holds no arrays")
    return {name: ArrayFile(path, name) for name in names}


def read_array(file: ArrayFile) -> Array:
    """The array of a file.

    Raises:
        InputError: It cannot be read, or is no array of numbers.
    """
    kind = ".npz" if file.entry else ".npy"
    try:
        with open_input(file.path) as opened:
            read = np.load(opened, allow_pickle=False)
            array = read[file.entry] if file.entry else read
    except OSError as error:
        raise InputError(f"{file.path}: cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise InputError(
            f"{file.path}: declares more numbers than the memory can hold; is it damaged?"
        ) from error
    except (ValueError, EOFError, OverflowError, KeyError, BadZipFile) as error:
        raise InputError(f"{file.path}: is no {kind} file of numbers: {error}") from error

    if not isinstance(array, np.ndarray):
        raise InputError(f"{file.path}: holds several arrays; expected one, as numpy.save writes it")

    return array
