"""Which way the codes run in this process: compiled from C, where the build had a compiler, or with NumPy alone.

Both ways read and write the same bytes and refuse the same. What is decided once is kept: a file is coded one way
from its first tensor to its last.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from modelpress.export.extras import how_to_compile

if TYPE_CHECKING:
    from modelpress.export.coding.core_functions import CoreFunctions

NUMPY_ALONE = "MODELPRESS_NUMPY"  # set in the environment, and not empty: as if there had been no compiler

_numpy_alone: list[bool] = []  # not empty inside `numpy_alone`


def core() -> "CoreFunctions | None":
    """The compiled functions, or None where NumPy does the work."""
    return None if _numpy_alone else _built()


@cache
def _built() -> "CoreFunctions | None":
    if os.environ.get(NUMPY_ALONE):
        return None
    try:
        from modelpress.export.coding import _core  # type: ignore[attr-defined]
    except ImportError:
        return None
    functions: CoreFunctions = _core
    return functions


@contextmanager
def numpy_alone() -> Iterator[None]:
    """Code with NumPy alone, as where nothing is compiled: for measuring and testing."""
    _numpy_alone.append(True)
    try:
        yield
    finally:
        _numpy_alone.pop()


def way_in_use() -> str:
    """What `core` gives, in a few words for people; how to have it compiled where it is not.

    Example:
        >>> with numpy_alone():
        ...     way_in_use().split(":")[0]
        'codes in NumPy, many times slower'
    """
    if core() is not None:
        return "codes compiled"
    if os.environ.get(NUMPY_ALONE):
        return f"codes in NumPy, many times slower: {NUMPY_ALONE} is set"
    return f"codes in NumPy, many times slower: {how_to_compile()}"
