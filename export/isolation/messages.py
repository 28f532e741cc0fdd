"""What two processes of this project tell each other: JSON, then arrays and bytes as they lie in memory. No pickle."""

import json
import struct
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Facts = dict[str, Any]
_LENGTH = struct.Struct("<Q")


def send(file: IO[bytes], facts: Facts, arrays: Sequence[Array] = ()) -> None:
    """Write one message.

    Args:
        file: Where to.
        facts: Whatever JSON can say.
        arrays: Of numbers; strings are no numbers.

    Raises:
        TypeError: An array holds objects.
    """
    for array in arrays:
        if array.dtype.hasobject:
            raise TypeError(f"expected an array of numbers, got one of {array.dtype}")

    head = json.dumps([facts, [[array.dtype.str, array.shape] for array in arrays]]).encode()
    file.write(_LENGTH.pack(len(head)) + head)
    for array in arrays:
        if array.size:
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    file.flush()


def receive(file: IO[bytes]) -> tuple[Facts, list[Array]]:
    """Read one message.

    Raises:
        EOFError: The other side is gone.

    Example:
        >>> import io
        >>> pipe = io.BytesIO()
        >>> send(pipe, {"step": 1}, [np.array([1.5], np.float32)])
        >>> _ = pipe.seek(0)
        >>> receive(pipe)
        ({'step': 1}, [array([1.5], dtype=float32)])
    """
    (length,) = _LENGTH.unpack(_exactly(file, _LENGTH.size))
    facts, described = json.loads(bytes(_exactly(file, length)))
    arrays = []
    for kind, shape in described:
        dtype = np.dtype(kind)
        data = _exactly(file, dtype.itemsize * int(np.prod(shape, dtype=object)))
        arrays.append(np.frombuffer(data, dtype).reshape(shape))
    return facts, arrays


def _exactly(file: IO[bytes], n_bytes: int) -> bytearray:
    data = bytearray(n_bytes)
    view, have = memoryview(data), 0
    while have < n_bytes:
        got = file.readinto(view[have:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError("the other process is gone")
        have += got
    return data
