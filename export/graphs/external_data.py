"""Weights that an ONNX model keeps in other files: found without ever leaving the model's folder.

Source: https://onnx.ai/onnx/repo-docs/ExternalData.html
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from modelpress.export.errors import InputError

MAX_ENTRIES = 16


def external_file(name: str, entries: Mapping[str, str], folder: Path) -> Path:
    """The file that holds a tensor's data.

    Args:
        name: Of the tensor, for messages.
        entries: The tensor's ``external_data``.
        folder: Where the model lies; the file must lie in it or below, links followed.

    Raises:
        InputError: The location is missing, absolute, leads out of the folder, or is no file.
    """
    location = entries.get("location", "")
    # both kinds of path: a file written on one system may be opened on the other
    steps = (*PurePosixPath(location).parts, *PureWindowsPath(location).parts)

    rooted = PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor
    if not location or "\0" in location or rooted or ".." in steps:
        raise InputError(f"{name}: external data at {location!r}; expected a path inside the model's folder")

    try:
        root = folder.resolve(strict=True)
        path = (root / location).resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise InputError(
            f"{name}: its external data {location!r} are not there; keep both files together"
        ) from error

    # once more after links are followed, which the text of the path does not show
    if not path.is_relative_to(root):
        raise InputError(
            f"{name}: its external data {location!r} lie outside the model's folder; copy the file into it"
        )
    if not path.is_file():
        raise InputError(f"{name}: its external data {location!r} are no file")

    return path


def external_range(name: str, entries: Mapping[str, str], *, n_bytes: int, file_bytes: int) -> int:
    """Where in the file a tensor's data start.

    Args:
        name: Of the tensor, for messages.
        entries: The tensor's ``external_data``.
        n_bytes: What shape and type of the tensor ask for.
        file_bytes: Size of the file.

    Raises:
        InputError: Offset or length are no numbers, contradict the shape, or exceed the file.

    Example:
        >>> external_range("w", {"offset": "8", "length": "4"}, n_bytes=4, file_bytes=12)
        8
    """
    offset, length = (_number(name, entries, key) for key in ("offset", "length"))
    start = offset or 0
    if length is not None and length != n_bytes:
        raise InputError(f"{name}: external data have {length:,} bytes; its shape asks for {n_bytes:,}")

    if start + n_bytes > file_bytes:
        raise InputError(
            f"{name}: external data end at byte {start + n_bytes:,}; the file has {file_bytes:,}: copy it again"
        )

    return start


def _number(name: str, entries: Mapping[str, str], key: str) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise InputError(f"{name}: {key} of its external data is {text[:40]!r}; expected a number of bytes")
    return int(text)
