"""A user's own X and y from NumPy or CSV files."""

import tokenize
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import InputError
from modelpress.export.files.inputs import check_regular
from modelpress.toolkit.sparse_regression.objectives import LeastSquares

_UNREADABLE = (
    ValueError,
    EOFError,
    MemoryError,
    SyntaxError,
    tokenize.TokenError,
)  # NumPy's, of damaged files


def load_problem(x_path: Path, y_path: Path) -> LeastSquares:
    """Read the problem ``min_w ||X w - y||^2`` from two files.

    Raises:
        InputError: A file is unreadable, is no table of finite numbers, or the two do not fit together.
    """
    y = _load_table(y_path)
    return LeastSquares(_load_table(x_path), y.ravel() if y.ndim == 2 and 1 in y.shape else y)


def _load_table(path: Path) -> npt.NDArray[Any]:
    if path.suffix not in (".npy", ".csv"):
        raise InputError(f"{path}: expected a .npy or a .csv file")
    try:
        check_regular(path)
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of an empty file, which is refused for its shape
            return np.loadtxt(path, delimiter=",", ndmin=2, encoding="utf-8-sig", skiprows=_header_rows(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except _UNREADABLE as error:
        raise InputError(f"{path}: is no table of numbers: {error}") from error


def _header_rows(path: Path) -> int:
    """1 where the first line holds column names: no field of it is a number."""
    with path.open(encoding="utf-8-sig") as file:
        fields = file.readline().partition("#")[0].strip().split(",")
    return 0 if any(map(_is_number, fields)) else 1


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
