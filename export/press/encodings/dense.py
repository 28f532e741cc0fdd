"""All levels in one run; for tensors with few zeros."""

from modelpress.export.coding.symbol_runs import RunReader, RunWriter
from modelpress.export.press.encodings.levels import Levels
from modelpress.export.press.encodings.slab_coder import (
    SlabCoder,
    Survey,
    Tables,
    count_levels,
    read_levels,
    write_levels,
)


class DenseCoder(SlabCoder):
    """One code over all levels."""

    groups = (("levels", 1),)

    def survey(self, levels: Levels) -> Survey:
        """Counts of the levels."""
        return [[count_levels(levels)]]

    def write(self, runs: RunWriter, levels: Levels, tables: Tables) -> None:
        """One run."""
        write_levels(runs, levels, tables[0][0])

    def read(self, runs: RunReader, count: int, tables: Tables) -> Levels:
        """Undo `write`."""
        return read_levels(runs, count, tables[0][0])
