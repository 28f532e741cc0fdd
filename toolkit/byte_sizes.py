"""Sizes as they are written on the command line."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

from modelpress.export.errors import CommandLineError, InputError

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "kib": 2**10, "mib": 2**20}


def parse_size(text: str, option: str = "--budget") -> int:
    """A size as it is written on the command line, in whole bytes; kB is 1000 of them, KiB 1024.

    Raises:
        CommandLineError: It is none, or not above zero.

    Example:
        >>> parse_size("60000"), parse_size("60kB"), parse_size("1.5 KiB")
        (60000, 60000, 1536)
    """
    found = re.fullmatch(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([a-z]*)\s*", text.lower(), re.ASCII)
    size = 0 if found is None else int(float(found[1]) * _UNITS.get(found[2], 0))
    if size <= 0:
        raise CommandLineError(
            f"{option} is {text!r}; expected a size in bytes, kB, MB, KiB or MiB, as in {option} 60000 or {option} 60kB"
        )
    return size


def _whole_bytes(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_size(value, "a size")
    except InputError as error:
        raise ValueError(str(error)) from error


ByteSize = Annotated[int, BeforeValidator(_whole_bytes), Field(ge=1)]
"""In a recipe: a number of bytes, or one with its unit, as in 30kB."""
