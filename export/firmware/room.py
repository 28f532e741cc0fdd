"""The memory that decoding takes, behind the activations in the arena."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from modelpress.export.coding.byte_parts import PartReader
from modelpress.export.coding.code_table import CodeTable
from modelpress.export.firmware.arena import Planes
from modelpress.export.firmware.coded_weights import CodedLayer
from modelpress.export.firmware.network import Weights

_SINGLE_BITS = 8  # of a look-up in the decoder's small form, press_internal.h
_MOST_STEP = 0xFFFF


@dataclass(frozen=True)
class Room:
    """Places, in bytes from the start of the arena, and numbers of elements; see press_nn.h.

    Attributes:
        start: Where the activations end.
        lookups: Bytes of look-up tables.
        n_places: Of four bytes.
        n_taps: Of four bytes.
    """

    start: int
    lookups: int
    n_places: int
    n_taps: int

    def fields(self) -> dict[str, str]:
        """As press_nn.h has them: larger elements first, so that all are aligned."""
        places, at = {}, self.start
        for name, size in (
            ("places", 4 * self.n_places),
            ("taps", 4 * self.n_taps),
            ("lookups", self.lookups),
        ):
            places[name] = at
            at += size
        numbers = {
            **places,
            "lookups_size": self.lookups,
            "n_taps": self.n_taps,
        }
        return {name: str(value) for name, value in numbers.items()}

    @property
    def end(self) -> int:
        """Bytes of the whole arena."""
        used = self.start + self.lookups + 4 * (self.n_places + self.n_taps)
        return -(-used // 4) * 4


def room_for(start: int, layers: Collection[tuple[Weights, CodedLayer, Planes]]) -> Room:
    """What the largest layer needs of each."""
    huffman = [c for _, c, _ in layers if c.coding == "huffman"]
    nonzeros = [int(np.count_nonzero(w.rows, axis=1).max()) for w, _, _ in layers]
    steps = [2 * (w.inputs * planes.pitch // _MOST_STEP) for w, _, planes in layers]
    return Room(
        start,
        lookups=_most(_lookup_sizes(c.masks) + _lookup_sizes(c.levels) for c in huffman),
        n_places=_most(max(w.window.height * w.window.width, c.group) for w, c, _ in layers),
        n_taps=_most(n + more for n, more in zip(nonzeros, steps, strict=True)),
    )


def _most(numbers: Iterable[int]) -> int:
    return max(numbers, default=0)


def _lookup_sizes(stored: bytes) -> int:
    """Bytes of the look-ups of all these code tables, press_lookup_size."""
    reader, total = PartReader(stored), 0
    while reader.position < len(stored):
        table = CodeTable.read(reader)
        total += (2 << min(table.width, _SINGLE_BITS)) + -(-2 * len(table.lengths) // 8) * 8
    return total
