"""Weights as they lie in flash: Huffman codes of masks and values, or numbers of a fixed width.

Rows are decoded one by one. A Huffman row is a mask for each group of elements, telling which are not zero, followed by
the values of these; code tables of masks are shared by layers. A packed row is the number of every element's
value in as few bits as numbers need.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.bits import pack_codewords, pack_fixed_width
from modelpress.export.coding.code_table import CodeTable, Counts
from modelpress.export.coding.huffman import code_lengths
from modelpress.export.firmware.network import Weights

Rows = npt.NDArray[np.int8]
_MASK_BITS = 9  # most elements of a mask: its code table has 2^9 symbols at most
_PLAIN_GROUP = 8
_RUN_SYMBOLS = 1 << 14  # FORMAT.md, "Runs": longer ones come in lanes, which firmware does not read
_BYTES = 256
N_CONTEXTS = 3  # press_nn.h
_LEVEL_BITS = 8  # of the longest codeword of a number: the decoder looks each up at once
_FEW_LEVELS, _FEW_LEVEL_BITS = 32, 7  # of fewer numbers: the look-ups take half as much memory


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
        levels: The code tables of the numbers of values; empty if packed.
        contexts: How many these are.
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
    contexts: int
    values: Rows | None
    values_differ: bool
    n_values: int
    group: int
    bits: int

    @property
    def size(self) -> int:
        """Bytes, tables included."""
        return (
            len(self.codes)
            + len(self.masks)
            + len(self.levels)
            + (0 if self.values is None else self.values.size)
        )


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


def group_of(weights: Weights) -> int | None:
    """Elements of a mask: as large a part of a kernel's taps as there can be; None if these divide into no such parts.

    Of kernels of one tap, masks go over several channels.
    """
    taps = weights.window.height * weights.window.width
    if taps == 1:
        return _PLAIN_GROUP
    return next((size for size in range(_MASK_BITS, 1, -1) if taps % size == 0), None)


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
    return min([*layers, _bytes_of(rows)], key=lambda layer: layer.size)


def _bytes_of(rows: Rows) -> CodedLayer:
    stored = pack_fixed_width(rows.astype(np.int64).reshape(-1) + 128, bits=8)
    return CodedLayer("packed", stored, b"", b"", 1, None, False, _BYTES, _PLAIN_GROUP, 8)


def _packed(found: Numbers) -> CodedLayer:
    differ, n = found.values.ndim > 1, found.values.shape[-1]
    bits = max(int(n - 1).bit_length(), 1)
    numbers, values = found.numbers.astype(np.int64).reshape(-1), found.values
    stored = pack_fixed_width(numbers, bits=bits)
    return CodedLayer("packed", stored, b"", b"", 1, values, differ, n, _PLAIN_GROUP, bits)


@dataclass(frozen=True, eq=False)
class HuffmanInput:
    """What is to be coded of one layer.

    Attributes:
        masks: Shape ``(outputs, groups)``.
        numbers: Shape ``(outputs, n)``; -1 for zeros.
        contexts: Same shape: under which of the three code tables each is coded.
        values: Of the numbers.
        group: Elements of a mask.
    """

    masks: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int16]
    contexts: npt.NDArray[np.int64]
    values: Rows
    group: int

    @property
    def mask_counts(self) -> Counts:
        """How often each mask occurs."""
        return Counts(0, np.bincount(self.masks.reshape(-1), minlength=1 << self.group))

    def level_counts(self, contexts: npt.NDArray[np.int64]) -> list[Counts]:
        """How often the number of each value occurs, in each context."""
        n = self.values.shape[-1]
        return [
            Counts(0, np.bincount(self.numbers[(self.numbers >= 0) & (contexts == k)], minlength=n))
            for k in range(int(contexts.max(initial=0)) + 1)
        ]


def contexts_of(rows: Rows, group: int, width: int) -> npt.NDArray[np.int64]:
    """0, 1, 2 as the signs to the left and above have a negative sum, none, or a positive one, within each group.

    Example:
        >>> contexts_of(np.array([[5, -2, 0, 3]], np.int8), 4, 2).tolist()
        [[1, 2, 2, 0]]
    """
    outputs, n = rows.shape
    groups = -(-n // group)
    signs = np.zeros((outputs, groups * group), np.int64)
    signs[:, :n] = np.sign(rows)
    signs = signs.reshape(outputs, groups, group)
    around = np.zeros_like(signs)
    left = np.arange(group) % width > 0
    around[..., left] += signs[..., np.flatnonzero(left) - 1]
    around[..., width:] += signs[..., :-width] if width < group else 0
    return np.asarray(np.sign(around).reshape(outputs, -1)[:, :n] + 1, np.int64)


def huffman_input(weights: Weights) -> HuffmanInput | None:
    """Masks and numbers of a layer; None if its rows cannot be coded so."""
    group = group_of(weights)
    if group is None or weights.rows.shape[1] > _RUN_SYMBOLS:
        return None
    whole = numbered(weights.rows, with_zero=False)
    own = numbered_by_row(weights.rows, with_zero=False)
    found = min((whole, own), key=_estimate)
    contexts = contexts_of(weights.rows, group, weights.window.width)
    return HuffmanInput(masks_of(found.numbers, group), found.numbers, contexts, found.values, group)


def _estimate(found: Numbers) -> float:
    counts = np.bincount(found.numbers[found.numbers >= 0])
    return Counts(0, counts).entropy_bits() / 8 + found.values.size


def level_tables(source: HuffmanInput) -> list[CodeTable]:
    """Code tables of a layer's numbers: one, or three if that takes fewer bytes in all."""
    choices = [
        source.level_counts(contexts) for contexts in (np.zeros_like(source.contexts), source.contexts)
    ]
    tables = [[_level_table(counts) for counts in choice] for choice in choices]
    sizes = [
        sum(table.payload_bits(counts) / 8 + len(table.pack()) for table, counts in zip(*pair, strict=True))
        for pair in zip(tables, choices, strict=True)
    ]
    return tables[int(np.argmin(sizes))] if len(choices[1]) == N_CONTEXTS else tables[0]


def _level_table(counts: Counts) -> CodeTable:
    used = counts.trimmed()
    most = _LEVEL_BITS if used.counts.size > _FEW_LEVELS else _FEW_LEVEL_BITS
    return CodeTable(used.lowest, code_lengths(used.counts, max_bits=most))


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


def _in_groups(masks: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """What belongs to each mask, followed by what belongs to its elements; the last group is filled up with zeros."""
    outputs, groups = masks.shape
    group = -(-rows.shape[1] // groups)
    filled = np.zeros((outputs, groups * group), np.int64)
    filled[:, : rows.shape[1]] = rows
    return np.concatenate([masks[..., None], filled.reshape(outputs, groups, group)], axis=2).reshape(-1)


def huffman(source: HuffmanInput, masks: CodeTable, levels: Sequence[CodeTable]) -> CodedLayer:
    """The rows of a layer under these tables."""
    contexts = source.contexts if len(levels) > 1 else np.zeros_like(source.contexts)
    words, lengths = np.zeros(source.numbers.shape, np.int64), np.zeros(source.numbers.shape, np.int64)
    for k, table in enumerate(levels):
        here = (source.numbers >= 0) & (contexts == k)
        if not table.is_silent:
            words[here] = table.codewords[source.numbers[here] - table.lowest]
            lengths[here] = table.lengths[source.numbers[here] - table.lowest]

    symbols = source.masks - masks.lowest  # (outputs, groups)
    silent = np.zeros_like(symbols)
    first = silent if masks.is_silent else masks.codewords[symbols].astype(np.int64)
    first_lengths = silent if masks.is_silent else masks.lengths[symbols].astype(np.int64)
    codes = pack_codewords(_in_groups(first, words), _in_groups(first_lengths, lengths))
    stored = b"".join(table.pack() for table in levels)
    n = source.values.shape[-1]
    return CodedLayer(
        "huffman",
        codes,
        masks.pack(),
        stored,
        len(levels),
        source.values,
        source.values.ndim > 1,
        n,
        source.group,
        0,
    )
