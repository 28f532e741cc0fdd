"""The kinds of sources; a new one gets a module beside this one and a line in the table."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from modelpress.export.errors import InputError
from modelpress.toolkit.data.options import DataOptions
from modelpress.toolkit.data.sources.array_files import is_array, read_arrays
from modelpress.toolkit.data.sources.found import Found
from modelpress.toolkit.data.sources.image_files import is_folder, is_table, read_folder, read_table
from modelpress.toolkit.data.sources.torch_datasets import is_function, read_dataset


class Kind(NamedTuple):
    """A kind of source: how it is called, whether a source is one, and how it is read."""

    name: str
    fits: Callable[[str], bool]
    read: Callable[[str, DataOptions], Found]


KINDS = (
    Kind("a folder of images, one folder per class", is_folder, read_folder),
    Kind("a .csv file of paths and labels", is_table, read_table),
    Kind("an .npz or .npy file", is_array, read_arrays),
    Kind("file.py:function that gives a torch Dataset", is_function, read_dataset),
)


def read_source(source: str, options: DataOptions) -> Found:
    """Everything in a source.

    Raises:
        InputError: It is of no known kind, is not there, or cannot be read.
    """
    kind = next((kind for kind in KINDS if kind.fits(source)), None)
    if kind is not None:
        return kind.read(source, options)
    path = Path(source)
    what = "is a file of another kind" if path.is_file() else "does not exist"
    raise InputError(f"data {source} {what}; expected {'; '.join(kind.name for kind in KINDS)}")
