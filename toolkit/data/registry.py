"""The data sets by name; a new one gets a module beside this one and an entry in the table."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from modelpress.export.errors import InputError
from modelpress.toolkit.data.cifar10 import load_cifar10
from modelpress.toolkit.data.data_set import DataSet
from modelpress.toolkit.data.digits import load_digits


def load_data_set(
    name: str, *, folder: str | None = None, download: bool = False, test_only: bool = False
) -> DataSet:
    """Load a data set by name, everything but the test images in the training split.

    Args:
        name: ``cifar10`` or ``digits``.
        folder: Where the files are (``cifar10``).
        download: Whether missing files may be fetched (``cifar10``, needs torchvision).
        test_only: Leave the training split empty where that saves reading it.

    Raises:
        InputError: The name is unknown, the data are missing or damaged, or a folder is given for a set that
            needs none.
    """
    if name not in _LOADERS:
        raise InputError(f"data set {name!r} is unknown; choose {' or '.join(sorted(_LOADERS))}")
    return _LOADERS[name](folder, download, test_only)


def _cifar10(folder: str | None, download: bool, test_only: bool) -> DataSet:
    return load_cifar10(folder, download=download, test_only=test_only)


def _digits(folder: str | None, download: bool, test_only: bool) -> DataSet:
    if folder is not None or download:
        raise InputError(
            "the digits need no folder and no download: leave them out, or choose the data set cifar10"
        )
    return load_digits()


_LOADERS: Mapping[str, Callable[[str | None, bool, bool], DataSet]] = MappingProxyType(
    {"cifar10": _cifar10, "digits": _digits}
)
