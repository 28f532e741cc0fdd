"""One symbol for the zero mask of a whole kernel, then the nonzero levels under codes chosen by their neighbours.

Zeros cluster inside a kernel, and so do signs. The mask symbol takes the first, and for the second a level's
code is chosen by the signs of the taps to its left and above it. Levels are written tap by tap: all kernels' first
taps, then all second ones; of a tap those under the first code, then the second, … So every run lies in one
piece, and its length is known when it is read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.byte_parts import PartReader
from modelpress.export.coding.code_table import Counts
from modelpress.export.coding.core import core
from modelpress.export.coding.symbol_runs import RunReader, RunWriter
from modelpress.export.errors import DamagedArtifact
from modelpress.export.press.encodings.levels import Levels
from modelpress.export.press.encodings.slab_coder import (
    LOWEST_LEVEL,
    N_LEVELS,
    Slab,
    SlabCoder,
    Survey,
    Tables,
    check_no_zero,
    read_levels,
    write_levels,
)
from modelpress.export.tensor_spec import TensorSpec

SLAB_ELEMENTS = 1 << 22
MAX_TAPS = 9
_CONTEXTS = 9  # signs of the left and of the upper neighbour

Contexts = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class KernelMaskCoder(SlabCoder):
    """Kernels of `taps` elements in rows of `width`; `contexts` codes for levels, 9 or 1."""

    taps: int
    width: int
    contexts: int

    number = 9

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:  # type: ignore[override]
        """A table for masks, and the tables for levels."""
        shape = f"{self.taps} taps in rows of {self.width}"
        return (f"masks of {shape}", 1), (
            f"nonzero levels in {self.contexts} contexts of {shape}",
            self.contexts,
        )

    @property
    def slab_elements(self) -> int:  # type: ignore[override]
        """Whole kernels, fewer than elsewhere: reading them takes more memory per element."""
        return SLAB_ELEMENTS // self.taps * self.taps

    @classmethod
    def candidates(cls, spec: TensorSpec, bounds: tuple[int, int] = (-4, 4)) -> list[SlabCoder]:
        """The tensor's own kernels, or their rows; else stretches of eight elements."""
        shapes = {(8, 8)}
        if len(spec.shape) > 2 and 2 <= prod(spec.shape[2:]) <= MAX_TAPS:
            shapes = {(prod(spec.shape[2:]), spec.shape[-1])}
        elif len(spec.shape) > 2 and 2 <= spec.shape[-1] <= MAX_TAPS:
            shapes = {(spec.shape[-1], spec.shape[-1])}
        return [cls(*shape, contexts) for shape in shapes for contexts in (_CONTEXTS, 1)]

    @classmethod
    def from_parameters(cls, reader: PartReader) -> SlabCoder:
        """Taps, width, contexts."""
        taps, width, contexts = reader.unpack("BBB")
        if not 1 <= width <= taps <= MAX_TAPS or contexts not in (1, _CONTEXTS):
            raise DamagedArtifact(
                f"kernels of {taps} taps in rows of {width} with {contexts} contexts are not defined"
            )
        return cls(taps, width, contexts)

    def parameters(self) -> bytes:
        """Taps, width, contexts."""
        return bytes([self.taps, self.width, self.contexts])

    def survey(self, slab: Slab) -> Survey:
        """Counts of masks, and of levels per context."""
        functions = core()
        if functions is None:
            masks, counts = self._counted(slab.levels)
        else:
            masks = np.zeros(1 << self.taps, np.int64)
            counts = np.zeros(self.contexts * N_LEVELS, np.int64)
            functions.count_kernels(slab.levels, self.taps, self.width, self.contexts, masks, counts)

        return [
            [Counts(0, masks)],
            [Counts(LOWEST_LEVEL, part) for part in counts.reshape(self.contexts, N_LEVELS)],
        ]

    def _counted(self, levels: Levels) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        kernels = self._kernels(levels)
        counts = np.zeros(self.contexts * N_LEVELS, np.int64)
        for tap in range(self.taps):
            at, context = self._tap(kernels, tap)
            symbols = kernels[at, tap].astype(np.int32) - LOWEST_LEVEL + N_LEVELS * context.astype(np.int32)
            counts += np.bincount(symbols, minlength=counts.size)

        return np.bincount(_masks(kernels), minlength=1 << self.taps), counts

    def write(self, runs: RunWriter, levels: Levels, tables: Tables) -> None:
        """Masks, then levels tap by tap."""
        (mask_table,), level_tables = tables
        kernels = self._kernels(levels)
        runs.add((_masks(kernels) - mask_table.lowest).astype(mask_table.symbol_dtype), mask_table)

        for tap in range(self.taps):
            at, context = self._tap(kernels, tap)
            for where, table in zip(_by_context(at, context, self.contexts), level_tables, strict=True):
                write_levels(runs, kernels[where, tap], table)

    def check(self, tables: Tables) -> None:
        """Masks of so many taps, no codeword for level 0."""
        (mask_table,), level_tables = tables
        if mask_table.lowest < 0 or mask_table.lowest + mask_table.lengths.size > 1 << self.taps:
            raise DamagedArtifact(f"code table has masks of more than {self.taps} taps")
        for table in level_tables:
            check_no_zero(table)

    def read(self, runs: RunReader, count: int, tables: Tables) -> Levels:
        """Undo `write`."""
        (mask_table,), _ = tables
        n_kernels = -(-count // self.taps)
        masks = runs.take(mask_table, n_kernels).astype(np.int16) + np.int16(mask_table.lowest)

        surplus = n_kernels * self.taps - count
        if surplus and masks[-1] >> self.taps - surplus:
            raise DamagedArtifact("the last mask has taps beyond the end of the tensor")

        kernels = np.zeros((n_kernels, self.taps), np.int16)
        self._read_taps(runs, masks, kernels, tables)
        return kernels.reshape(-1)[:count]

    def _read_taps(
        self, runs: RunReader, masks: npt.NDArray[np.int16], kernels: npt.NDArray[np.int16], tables: Tables
    ) -> None:
        for tap in range(self.taps):
            at = np.flatnonzero(masks >> tap & 1)
            context = self._contexts(kernels, at, tap)
            for where, table in zip(_by_context(at, context, self.contexts), tables[1], strict=True):
                kernels[where, tap] = read_levels(runs, where.size, table)

    def _kernels(self, levels: Levels) -> npt.NDArray[np.int16]:
        """Shape ``(n, taps)``; the last kernel is filled up with zeros."""
        n_kernels = -(-levels.size // self.taps)
        if levels.size == n_kernels * self.taps:
            return levels.reshape(n_kernels, self.taps)
        kernels = np.zeros((n_kernels, self.taps), np.int16)
        kernels.reshape(-1)[: levels.size] = levels
        return kernels

    def _tap(self, kernels: npt.NDArray[np.int16], tap: int) -> tuple[npt.NDArray[np.int64], Contexts]:
        """Which kernels have a level at this tap, and its context in each."""
        at = np.flatnonzero(kernels[:, tap])
        return at, self._contexts(kernels, at, tap)

    def _contexts(self, kernels: npt.NDArray[np.int16], at: npt.NDArray[np.int64], tap: int) -> Contexts:
        context = np.zeros(at.size, np.uint8)
        if self.contexts == 1:
            return context

        if tap % self.width:
            context += 3 * _sign_class(kernels[at, tap - 1])

        if tap >= self.width:
            context += _sign_class(kernels[at, tap - self.width])

        return context


def _sign_class(levels: Levels) -> Contexts:
    """0 for zero, 1 for negative, 2 for positive."""
    return (levels > 0).astype(np.uint8) * np.uint8(2) + (levels < 0)


def _masks(kernels: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Bit ``t`` is set where tap ``t`` is not zero."""
    masks = np.zeros(len(kernels), np.int16)
    for tap in range(kernels.shape[1]):
        masks |= (kernels[:, tap] != 0).astype(np.int16) << tap
    return masks


def _by_context(
    at: npt.NDArray[np.int64], context: Contexts, n_contexts: int
) -> Iterator[npt.NDArray[np.int64]]:
    """The kernels of every context, in order."""
    ordered = at[np.argsort(context, kind="stable")]
    yield from np.split(ordered, np.cumsum(np.bincount(context, minlength=n_contexts))[:-1])
