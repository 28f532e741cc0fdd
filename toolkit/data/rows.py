"""Examples one after the other, in memory or on a disk: what has a shape, a type, and rows by their numbers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Index = npt.NDArray[np.int64]
_BLOCK_BYTES = 16 << 20


class Rows(Protocol):
    """An array, a file mapped into memory, or images that are decoded when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all rows together."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of every number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | Index) -> Array:
        """Rows in that order."""


@dataclass(frozen=True)
class ChosenRows:
    """Some rows of others, which are read when they are asked for.

    Attributes:
        index: Which, in order.
    """

    rows: Rows
    index: Index

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`."""
        return (len(self.index), *self.rows.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `Rows`."""
        return self.rows.dtype

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: slice | Index) -> Array:
        return self.rows[self.index[index]]


def chosen(rows: Rows, index: Index) -> Rows:
    """Some rows: copied where they are in memory, else named.

    Example:
        >>> chosen(np.array([[1], [2], [3]]), np.array([2, 0])).tolist()
        [[3], [1]]
    """
    if isinstance(rows, ChosenRows):
        return ChosenRows(rows.rows, rows.index[index])
    if isinstance(rows, np.ndarray) and not isinstance(rows, np.memmap):
        return rows[index]
    return ChosenRows(rows, index)


def in_memory(rows: Rows) -> Array:
    """All rows, contiguous."""
    return np.ascontiguousarray(rows[:])


def blocks_of(rows: Rows) -> Iterator[Array]:
    """All rows, some at a time."""
    for part in row_blocks(rows):
        yield np.ascontiguousarray(rows[part])


def row_blocks(rows: Rows) -> Iterator[slice]:
    """Parts of a few megabytes each."""
    row_bytes = max(int(np.prod(rows.shape[1:])) * rows.dtype.itemsize, 1)
    step = max(_BLOCK_BYTES // row_bytes, 1)
    for start in range(0, len(rows), step):
        yield slice(start, min(start + step, len(rows)))


@dataclass(frozen=True)
class ChannelsFirst:
    """Images stored as ``(n, H, W, C)``, or grey ones as ``(n, H, W)``, shown as ``(n, C, H, W)``."""

    rows: Rows

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`."""
        n, height, width, *channels = self.rows.shape
        return n, channels[0] if channels else 1, height, width

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `Rows`."""
        return self.rows.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | Index) -> Array:
        images = self.rows[index]
        return images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class CastRows:
    """Rows in another type."""

    rows: Rows
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`."""
        return self.rows.shape

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | Index) -> Array:
        return self.rows[index].astype(self.dtype)
