"""Functions of the user's own, named in a recipe or on the command line; never because a file says so."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelpress.export.errors import InputError


def user_function(name: str, key: str) -> Callable[..., Any]:
    """The function that a key of a recipe names.

    Args:
        name: ``package.module:function`` or ``file.py:function``.
        key: Of the recipe, for messages.

    Raises:
        InputError: It cannot be found, or its module raises.

    Example:
        >>> user_function("math:hypot", "task.metric")(3, 4)
        5.0
    """
    where, colon, function_name = name.rpartition(":")
    if not colon or not where or not function_name.isidentifier():
        raise InputError(f"{key} {name!r}: expected package.module:function, or file.py:function")
    function = getattr(_module(where, name, key), function_name, None)
    if not callable(function):
        raise InputError(f"{key} {name!r}: there is no function {function_name!r} in {where}")
    return function


def called(name: str, key: str, arguments: Mapping[str, Any]) -> Any:
    """What that function returns for keyword arguments.

    Raises:
        InputError: As above, or it raises.
    """
    function = user_function(name, key)
    try:
        return function(**arguments)
    except Exception as error:  # whatever the user's code raises
        raise InputError(f"{key} {name!r} raised {type(error).__name__}: {error}") from error


def _module(where: str, name: str, key: str) -> Any:
    try:
        if not where.endswith(".py"):
            return importlib.import_module(where)
        path = Path(where)
        if not path.is_file():
            what = "is no file" if path.exists() else "does not exist"
            raise InputError(f"{key} {name!r}: {where} {what}")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None  # a name that ends in .py
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    except InputError:
        raise
    except Exception as error:  # whatever the user's module raises when it is imported
        raise InputError(f"{key} {name!r} cannot be imported: {type(error).__name__}: {error}") from error
