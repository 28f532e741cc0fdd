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
        n_masks: Of two bytes.
        n_places: Of four bytes.
        n_taps: Of two bytes and one.
        n_levels: Of one byte.
    """

    start: int
    lookups: int
    n_masks: int
    n_places: int
    n_taps: int
    n_levels: int

    def fields(self) -> dict[str, str]:
        """As press_nn.h has them: larger elements first, so that all are aligned."""
        places, at = {}, self.start
        for name, size in (
            ("places", 4 * self.n_places),
            ("lookups", self.lookups),
            ("masks", 2 * self.n_masks),
            ("steps", 2 * self.n_taps),
            ("levels", self.n_levels),
            ("weights", self.n_taps),
        ):
            places[name] = at
            at += size
        numbers = {
            **places,
            "lookups_size": self.lookups,
            "n_masks": self.n_masks,
            "n_levels": self.n_levels,
            "n_places": self.n_places,
            "n_taps": self.n_taps,
        }
        return {name: str(value) for name, value in numbers.items()}

    @property
    def end(self) -> int:
        """Bytes of the whole arena."""
        used = self.start + self.lookups + 2 * self.n_masks + 4 * self.n_places + 3 * self.n_taps + self.n_levels
        return -(-used // 4) * 4


def room_for(start: int, layers: Collection[tuple[Weights, CodedLayer, Planes]]) -> Room:
    """What the largest layer needs of each."""
    huffman = [(w, c) for w, c, _ in layers if c.coding == "huffman"]
    nonzeros = [int(np.count_nonzero(w.rows, axis=1).max()) for w, _, _ in layers]
    steps = [2 * (w.inputs * planes.pitch // _MOST_STEP) for w, _, planes in layers]
    return Room(
        start,
        lookups=_most(_lookup_size(c.masks) + _lookup_size(c.levels) for _, c in huffman),
        n_masks=_most(-(-w.rows.shape[1] // c.group) for w, c in huffman),
        n_places=_most(w.window.height * w.window.width for w, _, _ in layers),
        n_taps=_most(n + more for n, more in zip(nonzeros, steps, strict=True)),
        n_levels=_most(int(np.count_nonzero(w.rows, axis=1).max()) for w, _ in huffman),
    )


def _most(numbers: Iterable[int]) -> int:
    return max(numbers, default=0)


def _lookup_size(stored: bytes) -> int:
    table = CodeTable.read(PartReader(stored))
    n = len(table.lengths)
    return (2 << min(table.width, _SINGLE_BITS)) + -(-2 * n // 8) * 8
