"""Codes as **levels**: signed integers of which 0 is the exact zero, or the code whose value is nearest to zero.

Signs and magnitudes of neighbouring levels resemble each other; those of raw asymmetric codes do not. See
FORMAT.md, "Levels".
"""

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.byte_parts import PartWriter
from modelpress.export.coding.core import core
from modelpress.export.errors import DamagedArtifact
from modelpress.export.press.encodings.grid import StoredGrid, centres, grid_bytes, grid_of, write_grid
from modelpress.export.quantized import QuantizedTensor
from modelpress.export.tensor_spec import TensorSpec

Levels = npt.NDArray[np.int16]
_T_co = TypeVar("_T_co", covariant=True)

_AT_ONCE = 1 << 20  # elements that are converted together: bounds the working memory


def level_bounds(grid: StoredGrid) -> tuple[int, int]:
    """Lowest and highest level that this grid can have."""
    low, high = grid.code_range
    centre = centres(grid)
    if centre.size == 0:
        return 0, 0
    return low - int(centre.max()), high - int(centre.min()) + grid.has_support


def levels_of(tensor: QuantizedTensor, grid: StoredGrid, start: int, stop: int) -> Levels:
    """The levels of the elements `start` to `stop`, row-major.

    Returns:
        Shape ``(stop - start,)``.
    """
    codes = tensor.codes.reshape(-1)[start:stop]
    functions = core()
    if functions is not None:
        levels = np.empty(codes.size, np.int16)
        support = None if tensor.support is None else tensor.support.reshape(-1)[start:stop]
        functions.levels_of(
            codes,
            support,
            grid.offset is None,
            centres(grid).reshape(-1) if levels.size else np.zeros(1, np.int16),
            max(_inner(grid), 1),
            start,
            levels,
        )
        return levels

    levels = codes.astype(np.int16)
    if grid.offset is None:
        return levels

    for part, centre in _pieces(grid, start, stop):
        levels[part] -= centre
        if tensor.support is not None:
            levels[part] += levels[part] >= 0  # 0 is left to the exact zeros

    if tensor.support is not None:
        levels *= tensor.support.reshape(-1)[start:stop]

    return levels


class LevelSource(Protocol):
    """What is coded as levels: a front that says what they stand for, then the levels."""

    @property
    def spec(self) -> TensorSpec:
        """Of the tensor."""
        ...

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest level that a reader may expect."""
        ...

    @property
    def front_bytes(self) -> int:
        """Length of the front."""
        ...

    def write_front(self, writer: PartWriter) -> None:
        """Write the front."""
        ...

    def levels(self, start: int, stop: int) -> Levels:
        """The levels of the elements `start` to `stop`, row-major."""
        ...


class Sink(Protocol[_T_co]):
    """Takes levels, in order, and becomes the tensor."""

    @property
    def spec(self) -> TensorSpec:
        """Of the tensor."""
        ...

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest level."""
        ...

    def put(self, start: int, levels: Levels) -> None:
        """Take the levels of the elements from `start` on; raises `DamagedArtifact`."""
        ...

    def tensor(self) -> _T_co:
        """The tensor of all levels; raises `DamagedArtifact`."""
        ...


class QuantizedLevels:
    """The levels of a quantized tensor, behind its grid.

    Attributes:
        grid: With a signed centre, unless that makes no difference or is not wanted.
    """

    def __init__(self, tensor: QuantizedTensor, *, signed_centre: bool = True) -> None:
        self._tensor = tensor
        grid = grid_of(tensor)
        self.grid = grid if signed_centre else replace(grid, signed_centre=False)

    @property
    def spec(self) -> TensorSpec:
        """Of the tensor."""
        return self.grid.spec

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest level."""
        return level_bounds(self.grid)

    @property
    def front_bytes(self) -> int:
        """Length of the grid."""
        return grid_bytes(self.grid)

    def write_front(self, writer: PartWriter) -> None:
        """Write the grid."""
        write_grid(writer, self.grid)

    def levels(self, start: int, stop: int) -> Levels:
        """Some of the levels."""
        return levels_of(self._tensor, self.grid, start, stop)


def source_of(tensor: QuantizedTensor | LevelSource) -> LevelSource:
    """What is coded of a tensor."""
    return QuantizedLevels(tensor) if isinstance(tensor, QuantizedTensor) else tensor


class LevelSink:
    """Collects levels and becomes the tensor.

    Example:
        >>> from modelpress.export.tensor_spec import TensorSpec
        >>> sink = LevelSink(StoredGrid(TensorSpec((3,), 1), 3, np.float32(0.5), None, None, False))
        >>> sink.put(0, np.array([1, 0, -2], np.int16))
        >>> sink.tensor().codes
        array([ 1,  0, -2], dtype=int8)
    """

    def __init__(self, grid: StoredGrid) -> None:
        self._grid = grid
        self.spec = grid.spec
        self._codes = np.zeros(grid.spec.size, np.int8 if grid.offset is None else np.uint8)
        self._support = np.zeros(grid.spec.size, np.bool_) if grid.has_support else None

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest level."""
        return level_bounds(self._grid)

    def put(self, start: int, levels: Levels) -> None:
        """Take the levels of the elements from `start` on.

        Raises:
            DamagedArtifact: A level stands for no code.
        """
        for part, centre in _pieces(self._grid, start, start + levels.size):
            where = slice(start + part.start, start + part.stop)
            if not self._put(levels[part], centre, where):
                low, high = self._grid.code_range
                raise DamagedArtifact(f"a code is outside {low}..{high}")

    def _put(self, levels: Levels, centre: npt.NDArray[np.int16], where: slice) -> bool:
        """Convert one piece; returns whether all its codes are in range."""
        low, high = self._grid.code_range
        codes = levels
        if self._support is not None:
            self._support[where] = stored = codes != 0
            codes = (codes - (codes > 0) + centre) * stored
        else:
            codes = codes + centre

        self._codes[where] = codes
        return not codes.size or (int(codes.min()) >= low and int(codes.max()) <= high)

    def tensor(self) -> QuantizedTensor:
        """The tensor of all levels."""
        return self._grid.tensor(self._codes, self._support)


def _pieces(grid: StoredGrid, start: int, stop: int) -> Iterator[tuple[slice, npt.NDArray[np.int16]]]:
    """Pieces of a range of elements, counted from its start, with the centre of each element."""
    centre = centres(grid)
    inner = _inner(grid)
    for first in range(start, stop, _AT_ONCE):
        end = min(first + _AT_ONCE, stop)
        piece = slice(first - start, end - start)
        if centre.ndim:
            yield piece, centre[np.arange(first, end) // inner % centre.size]
        else:
            yield piece, centre


def _inner(grid: StoredGrid) -> int:
    """Elements from one channel to the next."""
    return prod(grid.spec.shape[grid.channel_axis + 1 :])
