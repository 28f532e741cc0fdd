"""All levels in one run; for tensors with few zeros."""

from modelpress.export.coding.symbol_runs import RunReader, RunWriter
from modelpress.export.press.encodings.levels import Levels
from modelpress.export.press.encodings.slab_coder import (
    Slab,
    SlabCoder,
    Survey,
    Tables,
    read_levels,
    write_levels,
)


class DenseCoder(SlabCoder):
    """One code over all levels."""

    number = 6
    groups = (("levels", 1),)

    def survey(self, slab: Slab) -> Survey:
        """Counts of the levels."""
        return [[slab.counts]]

    def write(self, runs: RunWriter, levels: Levels, tables: Tables) -> None:
        """One run."""
        write_levels(runs, levels, tables[0][0])

    def read(self, runs: RunReader, count: int, tables: Tables) -> Levels:
        """Undo `write`."""
        return read_levels(runs, count, tables[0][0])
