"""A bit per element, set where the level is not 0, then a run of the nonzero levels."""

import numpy as np

from modelpress.export.coding.symbol_runs import RunReader, RunWriter
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


class BitmapCoder(SlabCoder):
    """Positions take one bit per element, whatever the sparsity."""

    number = 8
    groups = (("nonzero levels", 1),)

    def survey(self, slab: Slab) -> Survey:
        """Counts of the nonzero levels."""
        return [[slab.nonzero_counts]]

    def plain_bytes(self, levels: Levels) -> int:
        """The bitmap."""
        return (levels.size + 7) // 8

    def write(self, runs: RunWriter, levels: Levels, tables: Tables) -> None:
        """Bitmap, then run."""
        nonzero = levels != 0
        runs.add_bytes(np.packbits(nonzero, bitorder="little").tobytes())
        write_levels(runs, levels[nonzero], tables[0][0])

    def check(self, tables: Tables) -> None:
        """No codeword for 0."""
        check_no_zero(tables[0][0])

    def read(self, runs: RunReader, count: int, tables: Tables) -> Levels:
        """Undo `write`."""
        packed = np.frombuffer(runs.take_bytes((count + 7) // 8), np.uint8)
        if count % 8 and packed[-1] >> count % 8:
            raise DamagedArtifact("padding bits of the bitmap are not zero")

        nonzero = np.unpackbits(packed, count=count, bitorder="little").view(np.bool_)
        levels = np.zeros(count, np.int16)
        levels[nonzero] = read_levels(runs, int(np.count_nonzero(nonzero)), tables[0][0])
        return levels
