"""Compressed sparse rows with relative indices: a run of gaps, then a run of the nonzero levels.

The matrix has one row per output channel; rows follow each other without a break, so the gaps restore all
positions, positions restore ``indptr`` and ``indices``, and row pointers take no bytes.

Source: Han, Mao and Dally 2016, "Deep Compression", arXiv:1510.00149.
"""

from dataclasses import dataclass

import numpy as np

from modelpress.export.coding.byte_parts import PartReader
from modelpress.export.coding.code_table import Counts
from modelpress.export.coding.relative_index import (
    check_positions,
    gaps_from_positions,
    positions_in_pieces,
)
from modelpress.export.coding.symbol_runs import RunReader, RunWriter
from modelpress.export.coding.varint import pack_varint
from modelpress.export.errors import DamagedArtifact
from modelpress.export.press.encodings.levels import Levels
from modelpress.export.press.encodings.slab_coder import (
    Slab,
    SlabCoder,
    Survey,
    Tables,
    check_no_zero,
    read_levels,
    write_levels,
)
from modelpress.export.tensor_spec import TensorSpec

GAP_BITS = range(1, 9)  # FORMAT.md, "gaps"


@dataclass(frozen=True)
class GapCoder(SlabCoder):
    """Gaps below ``2**gap_bits - 1`` have a symbol each; the last symbol is the filler."""

    gap_bits: int

    number = 7

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:  # type: ignore[override]
        """A table for gaps, one for levels."""
        return (f"gaps of {self.gap_bits} bits", 1), ("nonzero levels", 1)

    @classmethod
    def candidates(cls, spec: TensorSpec, bounds: tuple[int, int] = (-4, 4)) -> list[SlabCoder]:
        """Every width."""
        return [cls(gap_bits) for gap_bits in GAP_BITS]

    @classmethod
    def from_parameters(cls, reader: PartReader) -> SlabCoder:
        """The width."""
        (gap_bits,) = reader.unpack("B")
        if gap_bits not in GAP_BITS:
            raise DamagedArtifact(f"gaps are {gap_bits} bits wide; expected {GAP_BITS[0]} to {GAP_BITS[-1]}")
        return cls(gap_bits)

    def parameters(self) -> bytes:
        """The width."""
        return bytes([self.gap_bits])

    def survey(self, slab: Slab) -> Survey:
        """Counts of gaps and of nonzero levels."""
        return [[Counts(0, slab.gap_counts(self.gap_bits))], [slab.nonzero_counts]]

    def plain_bytes(self, levels: Levels) -> int:
        """The number of gaps."""
        return len(pack_varint(levels.size))

    def write(self, runs: RunWriter, levels: Levels, tables: Tables) -> None:
        """Number of gaps, gaps, levels."""
        positions = np.flatnonzero(levels)
        gaps = gaps_from_positions(positions, gap_bits=self.gap_bits)
        runs.add_bytes(pack_varint(gaps.size))
        table = tables[0][0]
        runs.add((gaps - table.lowest).astype(table.symbol_dtype), table)
        write_levels(runs, levels[positions], tables[1][0])

    def check(self, tables: Tables) -> None:
        """Gaps of this width, no codeword for level 0."""
        (gap_table,), (level_table,) = tables
        check_no_zero(level_table)
        if gap_table.lowest < 0 or gap_table.lowest + gap_table.lengths.size > 1 << self.gap_bits:
            raise DamagedArtifact(f"code table has gaps beyond {self.gap_bits} bits")

    def read(self, runs: RunReader, count: int, tables: Tables) -> Levels:
        """Undo `write`."""
        (gap_table,), (level_table,) = tables
        n_gaps = runs.take_varint()
        if n_gaps > count:
            raise DamagedArtifact(f"{n_gaps:,} gaps in {count:,} weights")

        gaps = runs.take(gap_table, n_gaps).astype(np.uint8) + np.uint8(gap_table.lowest)
        filler = (1 << self.gap_bits) - 1
        if gaps.size and gaps[-1] == filler:
            raise DamagedArtifact("the last gap is a filler")

        values = read_levels(runs, n_gaps - int(np.count_nonzero(gaps == filler)), level_table)
        levels = np.zeros(count, np.int16)

        found = 0
        for positions in positions_in_pieces(gaps, gap_bits=self.gap_bits):
            check_positions(positions, count)
            levels[positions] = values[found : found + positions.size]
            found += positions.size

        return levels
