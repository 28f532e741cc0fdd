"""Packages that measurements use where they are installed."""

import importlib
from typing import Any


def optional_module(name: str) -> Any:
    """The module, or None where it is not installed.

    Example:
        >>> optional_module("no_such_module") is None
        True
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
