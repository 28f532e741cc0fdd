"""What a Huffman encoding writes of a slab of levels; the frame around it is in `huffman_blob`.

A coder names the groups of code tables it needs, counts the symbols of each (so that its cost is known before
anything is written), writes, and reads.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from modelpress.export.coding.byte_parts import PartReader
from modelpress.export.coding.code_table import CodeTable, Counts
from modelpress.export.coding.symbol_runs import RunReader, RunWriter
from modelpress.export.errors import DamagedArtifact
from modelpress.export.press.encodings.levels import Levels
from modelpress.export.tensor_spec import TensorSpec

Tables = Sequence[Sequence[CodeTable]]  # per group, the tables of the group
Survey = list[list[Counts]]  # the same shape

LOWEST_LEVEL, N_LEVELS = -256, 513  # over all grids of at most 8 bits


class SlabCoder(ABC):
    """One way to write levels.

    Attributes:
        groups: For every group of tables, a name and the number of tables. Tensors may share groups of the
            same name.
        slab_elements: Elements of a slab; None for as many as usual.
    """

    groups: tuple[tuple[str, int], ...]
    slab_elements: int | None = None

    @classmethod
    def candidates(cls, spec: TensorSpec) -> list["SlabCoder"]:
        """The coders of this kind worth trying on a tensor of this shape; here the only one there is."""
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
    def survey(self, levels: Levels) -> Survey:
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
    return Counts(LOWEST_LEVEL, np.bincount(levels - np.int16(LOWEST_LEVEL), minlength=N_LEVELS))


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
