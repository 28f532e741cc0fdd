"""What a Huffman encoding writes of a slab of levels; the frame around it is in `huffman_blob`.

A coder names the groups of code tables it needs, counts the symbols of each (so that its cost is known before
anything is written), writes, and reads.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.byte_parts import PartReader
from modelpress.export.coding.code_table import CodeTable, Counts
from modelpress.export.coding.core import core
from modelpress.export.coding.relative_index import gap_counts
from modelpress.export.coding.symbol_runs import RunReader, RunWriter
from modelpress.export.errors import DamagedArtifact
from modelpress.export.press.encodings.levels import Levels
from modelpress.export.tensor_spec import TensorSpec

Tables = Sequence[Sequence[CodeTable]]  # per group, the tables of the group
Survey = list[list[Counts]]  # the same shape

LOWEST_LEVEL, N_LEVELS = -256, 513  # over all grids of at most 8 bits


@dataclass(frozen=True, eq=False)
class Slab:
    """Levels, and what several coders count of them, counted once.

    Example:
        >>> slab = Slab(np.array([0, 0, 5, 0, -1], np.int16))
        >>> slab.nonzero_counts.trimmed().counts, slab.gap_counts(2)
        (array([1, 0, 0, 0, 0, 0, 1]), array([0, 1, 1, 0]))
    """

    levels: Levels

    @cached_property
    def counts(self) -> Counts:
        """How often each level occurs."""
        return count_levels(self.levels)

    @cached_property
    def nonzero_counts(self) -> Counts:
        """Without 0."""
        counts = self.counts.counts.copy()
        counts[-LOWEST_LEVEL] = 0
        return Counts(LOWEST_LEVEL, counts)

    def gap_counts(self, gap_bits: int) -> npt.NDArray[np.int64]:
        """How often each gap symbol of this width occurs, shape ``(2**gap_bits,)``."""
        if self._all_gap_counts is None:
            return gap_counts(self._positions, gap_bits=gap_bits)
        return self._all_gap_counts[gap_bits - 1, : 1 << gap_bits]

    @cached_property
    def _all_gap_counts(self) -> npt.NDArray[np.int64] | None:
        """One row for each width, compiled."""
        functions = core()
        if functions is None:
            return None
        counts = np.zeros((8, 256), np.int64)
        functions.count_gaps(self.levels, counts)
        return counts

    @cached_property
    def _positions(self) -> npt.NDArray[np.int64]:
        return np.flatnonzero(self.levels)


class SlabCoder(ABC):
    """One way to write levels.

    Attributes:
        number: Of the encoding, in the file.
        groups: For every group of tables, a name and the number of tables. Tensors may share groups of the
            same name.
        slab_elements: Elements of a slab; None for as many as usual.
    """

    number: int
    groups: tuple[tuple[str, int], ...]
    slab_elements: int | None = None

    @classmethod
    def candidates(cls, spec: TensorSpec, bounds: tuple[int, int] = (-4, 4)) -> list["SlabCoder"]:
        """The coders of this kind worth trying on levels of this shape and range; here the only one there is."""
        return [cls()]

    @classmethod
    def from_parameters(cls, reader: PartReader) -> "SlabCoder":
        """Undo `parameters`; here there are none.

        Raises:
            DamagedArtifact: A parameter is out of range.
        """
        return cls()

    def parameters(self) -> bytes:
        """What the header says of this coder."""
        return b""

    @abstractmethod
    def survey(self, slab: Slab) -> Survey:
        """Symbol counts of a slab."""

    def plain_bytes(self, levels: Levels) -> int:
        """Bytes of a slab that no code table governs."""
        return 0

    @abstractmethod
    def write(self, runs: RunWriter, levels: Levels, tables: Tables) -> None:
        """Write a slab."""

    def check(self, tables: Tables) -> None:
        """Refuse tables with symbols that this coder does not have; before any slab is read.

        Raises:
            DamagedArtifact: As said.
        """
        return None

    @abstractmethod
    def read(self, runs: RunReader, count: int, tables: Tables) -> Levels:
        """Undo `write`.

        Raises:
            DamagedArtifact: The runs contradict each other or the count.
        """


def count_levels(levels: Levels) -> Counts:
    """How often each level occurs.

    Example:
        >>> count_levels(np.array([-1, 3, 3], np.int16)).counts[[255, 259]]
        array([1, 2])
    """
    functions = core()
    if functions is None:
        return Counts(LOWEST_LEVEL, np.bincount(levels - np.int16(LOWEST_LEVEL), minlength=N_LEVELS))

    counts = np.zeros(N_LEVELS, np.int64)
    functions.count_levels(levels, counts)
    return Counts(LOWEST_LEVEL, counts)


def write_levels(runs: RunWriter, levels: Levels, table: CodeTable) -> None:
    """One run of levels."""
    runs.add((levels - np.int16(table.lowest)).astype(table.symbol_dtype), table)


def read_levels(runs: RunReader, count: int, table: CodeTable) -> Levels:
    """Undo `write_levels`."""
    return np.add(runs.take(table, count), np.int16(table.lowest), dtype=np.int16)


def check_no_zero(table: CodeTable) -> None:
    """Refuse a table for nonzero levels that has a codeword for 0.

    Raises:
        DamagedArtifact: As said.
    """
    at = -table.lowest
    if 0 <= at < table.lengths.size and table.lengths[at]:
        raise DamagedArtifact("a stored nonzero may be 0")
