"""Encoding 17: one symbol for the signs of a whole row of a kernel, then magnitudes, several in a symbol.

The signs of a row follow from those of the row above, whose negative tells as much as it does: it stands for it, with
all signs of the row below turned. Of 2 or 3 bits most magnitudes are 1: a code of whole bits for each would waste what
several in one symbol save. A magnitude is coded among those whose neighbours to the left and above are alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.byte_parts import PartReader
from modelpress.export.coding.code_table import MAX_ALPHABET, CodeTable, Counts
from modelpress.export.coding.core import core
from modelpress.export.coding.symbol_runs import RunReader, RunWriter
from modelpress.export.errors import DamagedArtifact
from modelpress.export.press.encodings.kernels import kernel_mask
from modelpress.export.press.encodings.levels import Levels
from modelpress.export.press.encodings.slab_coder import Slab, SlabCoder, Survey, Tables
from modelpress.export.tensor_spec import TensorSpec

MAX_TAPS, MAX_WIDTH, MAX_GROUPED = 81, 3, 8
_MAGNITUDE_CONTEXTS = 7
_WORTH_GROUPING = 128  # symbols; more cost more tables than they save
_SIZES = (1, 2, 3, 5, 9, 17, 40)

Symbols = npt.NDArray[np.int64]
Kernels = npt.NDArray[np.int16]


@dataclass(frozen=True)
class SignRowCoder(SlabCoder):
    """Kernels of `taps` elements in rows of `width`.

    Attributes:
        magnitudes: The largest.
        small: The largest that counts as small in a context.
        grouped: Magnitudes in a symbol.
    """

    taps: int
    width: int
    magnitudes: int
    small: int
    grouped: int

    number = 17

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:  # type: ignore[override]
        """Tables for the signs of rows, tables for magnitudes."""
        return (f"signs of rows of {self.width}", self._middle + 2), (
            f"{self.grouped} magnitudes to {self.magnitudes}, small to {self.small}",
            _MAGNITUDE_CONTEXTS,
        )

    @property
    def slab_elements(self) -> int:  # type: ignore[override]
        """Whole kernels."""
        return kernel_mask.SLAB_ELEMENTS // self.taps * self.taps

    @property
    def _middle(self) -> int:
        """The symbol of a row of zeros."""
        return int(3**self.width - 1) // 2

    @classmethod
    def candidates(cls, spec: TensorSpec, bounds: tuple[int, int] = (-4, 4)) -> list[SlabCoder]:
        """The tensor's own kernels, if their rows are of three, else stretches of three elements."""
        taps = prod(spec.shape[2:])
        own = len(spec.shape) > 2 and spec.shape[-1] == MAX_WIDTH and taps <= MAX_TAPS
        largest = max(-bounds[0], bounds[1])
        # a few sizes, so that tensors whose ranges differ a little can share tables
        magnitudes = next((size for size in _SIZES if size >= largest), None)
        if magnitudes is None:
            return []

        small = 1 if magnitudes <= 5 else 2
        most = max(g for g in range(1, MAX_GROUPED + 1) if g == 1 or magnitudes**g <= _WORTH_GROUPING)
        shape = (taps if own else MAX_WIDTH, MAX_WIDTH)
        return [cls(*shape, magnitudes, small, grouped) for grouped in {most, max(most - 1, 1)}]

    @classmethod
    def from_parameters(cls, reader: PartReader) -> SlabCoder:
        """Taps, width, largest and small magnitude, magnitudes in a symbol."""
        taps, width, magnitudes, small, grouped = reader.unpack("BBBBB")
        if not (1 <= width <= MAX_WIDTH and width <= taps <= MAX_TAPS and taps % width == 0):
            raise DamagedArtifact(f"kernels of {taps} taps in rows of {width} are not defined")
        if not (magnitudes and small and 1 <= grouped <= MAX_GROUPED) or magnitudes**grouped > MAX_ALPHABET:
            raise DamagedArtifact(f"{grouped} magnitudes to {magnitudes} in a symbol are not defined")
        return cls(taps, width, magnitudes, small, grouped)

    def parameters(self) -> bytes:
        """Taps, width, largest and small magnitude, magnitudes in a symbol."""
        return bytes([self.taps, self.width, self.magnitudes, self.small, self.grouped])

    def survey(self, slab: Slab) -> Survey:
        """Counts of rows and of groups of magnitudes, per context."""
        signs = np.zeros((self._middle + 2, 3**self.width), np.int64)
        groups = np.zeros((_MAGNITUDE_CONTEXTS, self.magnitudes**self.grouped), np.int64)
        functions = core()
        if functions is None:
            self._count(slab.levels, signs, groups)
        else:
            functions.count_sign_rows(slab.levels, self.parameters(), signs, groups)
        return [[Counts(0, row) for row in counts] for counts in (signs, groups)]

    def _count(self, levels: Levels, signs: Symbols, groups: Symbols) -> None:
        kernels = self._kernels(levels)
        for found, counts in ((self._sign_runs, signs), (self._magnitude_runs, groups)):
            for context, symbols in found(kernels):
                counts[context] += np.bincount(symbols, minlength=counts.shape[1])

    def write(self, runs: RunWriter, levels: Levels, tables: Tables) -> None:
        """Signs row by row, then magnitudes tap by tap."""
        kernels = self._kernels(levels)
        for found, group in zip((self._sign_runs, self._magnitude_runs), tables, strict=True):
            for context, symbols in found(kernels):
                table = group[context]
                runs.add((symbols - table.lowest).astype(table.symbol_dtype), table)

    def check(self, tables: Tables) -> None:
        """Symbols of rows and groups only."""
        for group, n_symbols in zip(tables, (3**self.width, self.magnitudes**self.grouped), strict=True):
            for table in group:
                if table.lowest < 0 or table.lowest + table.lengths.size > n_symbols:
                    raise DamagedArtifact("code table goes beyond the symbols of its rows or magnitudes")

    def read(self, runs: RunReader, count: int, tables: Tables) -> Levels:
        """Undo `write`."""
        kernels = np.zeros((-(-count // self.taps), self.taps), np.int16)
        for row in range(self.taps // self.width):
            self._read_row(runs, kernels, row, tables[0])
        if np.any(kernels.reshape(-1)[count:]):
            raise DamagedArtifact("signs beyond the end of the tensor")

        for tap in range(self.taps):
            self._read_tap(runs, kernels, tap, tables[1])
        return kernels.reshape(-1)[:count]

    def _read_row(self, runs: RunReader, kernels: Kernels, row: int, tables: Sequence[CodeTable]) -> None:
        contexts, turned = self._row_contexts(kernels, row)
        for context, table in enumerate(tables):
            at = np.flatnonzero(contexts == context)
            symbols = _take(runs, table, at.size)
            symbols = np.where(turned[at], 3**self.width - 1 - symbols, symbols)
            for x in range(self.width):
                digits = symbols // 3 ** (self.width - 1 - x) % 3
                kernels[at, row * self.width + x] = digits - 1

    def _read_tap(self, runs: RunReader, kernels: Kernels, tap: int, tables: Sequence[CodeTable]) -> None:
        at, contexts = self._magnitude_contexts(kernels, tap)
        for context, table in enumerate(tables):
            here = at[contexts == context]
            symbols = _take(runs, table, -(-here.size // self.grouped))
            digits = symbols[:, None] // self.magnitudes ** np.arange(self.grouped) % self.magnitudes
            digits = digits.reshape(-1)
            if np.any(digits[here.size :]):
                raise DamagedArtifact("magnitudes beyond the last one are not 1")
            kernels[here, tap] *= (digits[: here.size] + 1).astype(np.int16)

    def _kernels(self, levels: Levels) -> Kernels:
        """Shape ``(n, taps)``; the last kernel is filled up with zeros."""
        kernels = np.zeros((-(-levels.size // self.taps), self.taps), np.int16)
        kernels.reshape(-1)[: levels.size] = levels
        return kernels

    def _sign_runs(self, kernels: Kernels) -> Iterator[tuple[int, Symbols]]:
        for row in range(self.taps // self.width):
            symbols = self._row_symbols(kernels, row)
            contexts, turned = self._row_contexts(kernels, row)
            symbols = np.where(turned, 3**self.width - 1 - symbols, symbols)
            for context in range(self._middle + 2):
                yield context, symbols[contexts == context]

    def _row_symbols(self, kernels: Kernels, row: int) -> Symbols:
        signs = np.sign(kernels[:, row * self.width : (row + 1) * self.width]).astype(np.int64)
        return (signs + 1) @ 3 ** np.arange(self.width - 1, -1, -1)

    def _row_contexts(self, kernels: Kernels, row: int) -> tuple[Symbols, npt.NDArray[np.bool_]]:
        """Context of each kernel at this row, and whether its signs are turned."""
        if row == 0:
            return np.full(len(kernels), self._middle + 1), np.zeros(len(kernels), np.bool_)
        above = self._row_symbols(kernels, row - 1) - self._middle
        return np.abs(above), above < 0

    def _magnitude_runs(self, kernels: Kernels) -> Iterator[tuple[int, Symbols]]:
        for tap in range(self.taps):
            at, contexts = self._magnitude_contexts(kernels, tap)
            for context in range(_MAGNITUDE_CONTEXTS):
                here = np.abs(kernels[at[contexts == context], tap].astype(np.int64)) - 1
                padded = np.zeros(-(-here.size // self.grouped) * self.grouped, np.int64)
                padded[: here.size] = here
                yield context, padded.reshape(-1, self.grouped) @ self.magnitudes ** np.arange(self.grouped)

    def _magnitude_contexts(self, kernels: Kernels, tap: int) -> tuple[Symbols, Symbols]:
        """The kernels that are not zero at this tap, and the context of each."""
        at = np.flatnonzero(kernels[:, tap])
        sign = np.sign(kernels[at, tap])
        contexts = np.full(at.size, 2)
        if tap % self.width:
            contexts += self._likeness(kernels[at, tap - 1] * sign)
        if tap >= self.width:
            contexts += self._likeness(kernels[at, tap - self.width] * sign)
        return at, contexts

    def _likeness(self, neighbours: Kernels) -> Symbols:
        """-1: of the other sign, 0: zero, 1: small and of the same sign, 2: large."""
        return np.sign(neighbours).astype(np.int64) + (neighbours > self.small)


def _take(runs: RunReader, table: CodeTable, count: int) -> Symbols:
    return runs.take(table, count).astype(np.int64) + table.lowest
