"""Weights as they lie in flash: Huffman codes of masks and values, or numbers of a fixed width.

Rows are decoded one by one. A Huffman row is a mask for each group of elements, telling which are not zero, then the
values of these; both under code tables that several layers may share. A packed row is the number of every element's
value in as few bits as numbers need.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.bits import pack_codewords, pack_fixed_width
from modelpress.export.coding.code_table import CodeTable, Counts
from modelpress.export.errors import ModelError
from modelpress.export.firmware.network import Weights

Rows = npt.NDArray[np.int8]
_MASK_BITS = 9  # most elements of a mask: its code table has 2^9 symbols at most
_PLAIN_GROUP = 8
_RUN_SYMBOLS = 1 << 14  # FORMAT.md, "Runs": longer ones come in lanes, which firmware does not read
_BYTES = 256


@dataclass(frozen=True, eq=False)
class Numbers:
    """Weights as numbers of their values.

    Attributes:
        values: Shape ``(n,)``, or ``(outputs, n)`` where every output has values of its own; int8, rising. Without 0
            for Huffman codes.
        numbers: Shape of the rows, int16; of zeros -1 where `values` leaves 0 out.
    """

    values: Rows
    numbers: npt.NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class CodedLayer:
    """The weights of one layer in flash.

    Attributes:
        coding: ``huffman`` or ``packed``.
        codes: All rows.
        masks: The code table of the masks, as stored; empty if packed.
        levels: The code table of the numbers of values; empty if packed.
        values: What they stand for; None: number less 128.
        values_differ: Whether each output has its own.
        n_values: Of one output.
        group: Elements of a mask.
        bits: Of a packed number.
    """

    coding: str
    codes: bytes
    masks: bytes
    levels: bytes
    values: Rows | None
    values_differ: bool
    n_values: int
    group: int
    bits: int

    @property
    def size(self) -> int:
        """Bytes, tables included."""
        return len(self.codes) + len(self.masks) + len(self.levels) + (0 if self.values is None else self.values.size)


def numbered(rows: Rows, *, with_zero: bool) -> Numbers:
    """The distinct values of all rows, or those of each row if that takes fewer bytes.

    Example:
        >>> found = numbered(np.array([[5, 0, -2]], np.int8), with_zero=False)
        >>> found.values.tolist(), found.numbers.tolist()
        ([-2, 5], [[1, -1, 0]])
    """
    values = np.unique(rows)
    if not with_zero:
        values = values[values != 0]
    by_value = np.full(_BYTES, -1, np.int16)
    by_value[values.astype(np.int16) + 128] = np.arange(len(values))
    return Numbers(values, by_value[rows.astype(np.int16) + 128])


def numbered_by_row(rows: Rows, *, with_zero: bool) -> Numbers:
    """The distinct values of each row: of grids of few codes with a scale per channel."""
    each = [numbered(row[None], with_zero=with_zero) for row in rows]
    width = max((len(one.values) for one in each), default=0)
    values = np.zeros((len(rows), width), np.int8)
    for row, one in zip(values, each, strict=True):
        row[: len(one.values)] = one.values
    return Numbers(values, np.concatenate([one.numbers for one in each]))


def group_of(weights: Weights) -> int:
    """Elements of a mask: the taps of a kernel, if they are few."""
    taps = weights.window.height * weights.window.width
    return taps if 1 < taps <= _MASK_BITS else _PLAIN_GROUP


def masks_of(numbers: npt.NDArray[np.int16], group: int) -> npt.NDArray[np.int64]:
    """Shape ``(outputs, groups)``: bit t is set where element t of a group is not zero."""
    outputs, n = numbers.shape
    groups = -(-n // group)
    filled = np.zeros((outputs, groups * group), np.int64)
    filled[:, :n] = numbers >= 0
    return np.asarray(filled.reshape(outputs, groups, group) @ (1 << np.arange(group)), np.int64)


def packed(rows: Rows) -> CodedLayer:
    """Numbers of a fixed width; whole bytes are the weights themselves."""
    choices = [numbered(rows, with_zero=True), numbered_by_row(rows, with_zero=True)]
    layers = [_packed(choice) for choice in choices if choice.values.shape[-1] <= _BYTES]
    return min(layers, key=lambda layer: layer.size)


def _packed(found: Numbers) -> CodedLayer:
    differ = found.values.ndim > 1
    n = found.values.shape[-1]
    bits = max(int(n - 1).bit_length(), 1)
    numbers = found.numbers.astype(np.int64).reshape(-1)
    if bits == 8 and not differ:  # a table would say what the numbers say themselves
        numbers = found.values[numbers].astype(np.int64) + 128
        return CodedLayer("packed", pack_fixed_width(numbers, bits=8), b"", b"", None, False, _BYTES, _PLAIN_GROUP, 8)
    return CodedLayer(
        "packed", pack_fixed_width(numbers, bits=bits), b"", b"", found.values, differ, n, _PLAIN_GROUP, bits
    )


@dataclass(frozen=True, eq=False)
class HuffmanInput:
    """What is to be coded of one layer."""

    masks: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int16]
    values: Rows
    group: int

    @property
    def mask_counts(self) -> Counts:
        """How often each mask occurs."""
        return Counts(0, np.bincount(self.masks.reshape(-1), minlength=1 << self.group))

    @property
    def level_counts(self) -> Counts:
        """How often the number of each value occurs."""
        return Counts(0, np.bincount(self.numbers[self.numbers >= 0], minlength=self.values.shape[-1]))


def huffman_input(name: str, weights: Weights) -> HuffmanInput:
    """Masks and numbers of a layer.

    Raises:
        ModelError: A row is too long for the decoder.
    """
    group = group_of(weights)
    if weights.rows.shape[1] > _RUN_SYMBOLS:
        raise ModelError(
            f"{name}: an output reads {weights.rows.shape[1]:,} weights; firmware takes up to {_RUN_SYMBOLS:,}"
        )
    whole = numbered(weights.rows, with_zero=False)
    own = numbered_by_row(weights.rows, with_zero=False)
    found = min((whole, own), key=_estimate)
    return HuffmanInput(masks_of(found.numbers, group), found.numbers, found.values, group)


def _estimate(found: Numbers) -> float:
    counts = np.bincount(found.numbers[found.numbers >= 0])
    return Counts(0, counts).entropy_bits() / 8 + found.values.size


def share_tables(counts: Sequence[Counts]) -> list[CodeTable]:
    """A code table for each, equal ones where sharing takes fewer bytes in all: joined pair by pair while it gains."""
    groups: list[tuple[Counts, list[int]]] = [(one, [k]) for k, one in enumerate(counts)]

    def cost(one: Counts) -> float:
        table = CodeTable.for_counts(one)
        return table.payload_bits(one) / 8 + len(table.pack())

    costs = [cost(one) for one, _ in groups]
    while len(groups) > 1:
        gains = [
            (costs[a] + costs[b] - cost(groups[a][0] + groups[b][0]), a, b)
            for a in range(len(groups))
            for b in range(a)
        ]
        gain, a, b = max(gains)
        if gain <= 0:
            break
        joined = (groups[a][0] + groups[b][0], groups[a][1] + groups[b][1])
        for k in sorted((a, b), reverse=True):
            del groups[k], costs[k]
        groups.append(joined)
        costs.append(cost(joined[0]))

    tables: dict[int, CodeTable] = {}
    for total, members in groups:
        table = CodeTable.for_counts(total)
        tables |= dict.fromkeys(members, table)
    return [tables[k] for k in range(len(counts))]


def huffman(source: HuffmanInput, masks: CodeTable, levels: CodeTable) -> CodedLayer:
    """The rows of a layer under these tables."""
    words, lengths = [np.zeros(0, np.uint32)], [np.zeros(0, np.uint8)]
    for mask_row, row in zip(source.masks, source.numbers, strict=True):
        for symbols, table in ((mask_row, masks), (row[row >= 0], levels)):
            if not table.is_silent:
                places = symbols - table.lowest
                words.append(table.codewords[places])
                lengths.append(table.lengths[places])
    differ = source.values.ndim > 1
    n = source.values.shape[-1]
    return CodedLayer(
        "huffman",
        pack_codewords(np.concatenate(words), np.concatenate(lengths)),
        masks.pack(),
        levels.pack(),
        source.values,
        differ,
        n,
        source.group,
        0,
    )
