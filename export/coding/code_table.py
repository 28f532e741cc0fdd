"""A canonical Huffman code over consecutive integers, as it is stored and as it is looked up.

See FORMAT.md, "Code tables".
"""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.byte_parts import PartReader
from modelpress.export.coding.core import core
from modelpress.export.coding.huffman import (
    LengthArray,
    canonical_codewords,
    check_code_lengths,
    code_lengths,
    pack_code_lengths,
    unpack_code_lengths,
)
from modelpress.export.coding.varint import pack_varint, unpack_varint, unzigzag, zigzag
from modelpress.export.errors import DamagedArtifact

MAX_LENGTH = 12  # bits of a codeword that this writer uses: the look-up tables stay in the fastest cache
MAX_ALPHABET = 1 << 10

_MULTI_SYMBOLS = 4  # of 8 bits each in one entry of the multi-symbol table
_MULTI_BITS = 8  # of its windows, or more where codewords are longer: short ones come several at once


@dataclass(frozen=True)
class Counts:
    """How often each of some consecutive integers occurs.

    Attributes:
        lowest: The integer that ``counts[0]`` counts.
        counts: Shape ``(n,)``, int64.
    """

    lowest: int
    counts: npt.NDArray[np.int64]

    def __add__(self, other: "Counts") -> "Counts":
        if not self.counts.size:
            return other
        if not other.counts.size:
            return self
        if (self.lowest, self.counts.size) == (other.lowest, other.counts.size):
            return Counts(self.lowest, self.counts + other.counts)

        lowest = min(self.lowest, other.lowest)
        end = max(self.lowest + self.counts.size, other.lowest + other.counts.size)

        total = np.zeros(end - lowest, np.int64)
        for part in (self, other):
            total[part.lowest - lowest : part.lowest - lowest + part.counts.size] += part.counts

        return Counts(lowest, total)

    @classmethod
    def none(cls) -> "Counts":
        """Nothing has been counted."""
        return cls(0, np.zeros(0, np.int64))

    def trimmed(self) -> "Counts":
        """Without the zeros at either end."""
        used = np.flatnonzero(self.counts)
        if used.size == 0:
            return Counts.none()
        return Counts(self.lowest + int(used[0]), self.counts[used[0] : used[-1] + 1].copy())

    @property
    def total(self) -> int:
        """Symbols in all."""
        return int(self.counts.sum())

    def entropy_bits(self) -> float:
        """Zero-order entropy of all symbols together, in bits.

        Source: Shannon 1948, "A Mathematical Theory of Communication", section 6.
        """
        used = self.counts[self.counts > 0].astype(np.float64)
        return float((used * np.log2(used.sum() / used)).sum()) if used.size else 0.0


@dataclass(frozen=True, eq=False)
class CodeTable:
    """One code; compared by identity, so that what is derived from it can be kept.

    Attributes:
        lowest: The integer that the first symbol stands for.
        lengths: Shape ``(n,)``; bits of each codeword, 0 for symbols without one.
    """

    lowest: int
    lengths: LengthArray

    @classmethod
    def for_counts(cls, counts: Counts) -> "CodeTable":
        """The best code for these counts, over the symbols from the first used to the last.

        Example:
            >>> CodeTable.for_counts(Counts(-2, np.array([0, 8, 0, 2, 1])))
            CodeTable(lowest=-1, lengths=array([1, 0, 2, 2], dtype=uint8))
        """
        used = counts.trimmed()
        return cls(used.lowest, code_lengths(used.counts, max_bits=MAX_LENGTH))

    def covers(self, counts: Counts) -> bool:
        """Whether every symbol counted has a codeword."""
        used = np.flatnonzero(counts.counts) + (counts.lowest - self.lowest)
        if used.size == 0:
            return True
        return bool(used[0] >= 0 and used[-1] < self.lengths.size and np.all(self.lengths[used]))

    def payload_bits(self, counts: Counts) -> int:
        """Bits of a run with these counts; every symbol counted must have a codeword."""
        if self.is_silent:
            return 0
        used = np.flatnonzero(counts.counts)
        return int(counts.counts[used] @ self.lengths[used + counts.lowest - self.lowest].astype(np.int64))

    @property
    def is_silent(self) -> bool:
        """Whether runs take no bits because at most one symbol has a codeword."""
        return int(np.count_nonzero(self.lengths)) <= 1

    @property
    def width(self) -> int:
        """Bits of the longest codeword."""
        return int(self.lengths.max(initial=0))

    @property
    def symbol_dtype(self) -> type[np.unsignedinteger]:
        """The type that decoded symbols have."""
        return np.uint8 if self.lengths.size <= 256 else np.uint16

    @cached_property
    def codewords(self) -> npt.NDArray[np.uint32]:
        """Codewords, first bit lowest."""
        return canonical_codewords(self.lengths)

    @cached_property
    def packed(self) -> bytes:
        """Codeword lengths as they are stored."""
        return pack_code_lengths(self.lengths)

    @cached_property
    def words(self) -> npt.NDArray[np.uint32]:
        """Codewords, and their lengths in the high 16 bits: what the compiled writers take."""
        functions = core()
        if functions is None:
            return self.codewords | self.lengths.astype(np.uint32) << np.uint32(16)
        return np.frombuffer(functions.table_words(self.lengths), np.uint32)

    @cached_property
    def single(self) -> npt.NDArray[np.uint32]:
        """For every window of `width` bits: the symbol it starts with in the low 16 bits, its length above."""
        order = np.argsort(self.lengths, kind="stable")
        order = order[np.count_nonzero(self.lengths == 0) :]
        lengths = self.lengths[order].astype(np.uint32)
        by_codeword = np.repeat(order.astype(np.uint32) | lengths << 16, 1 << (self.width - lengths))
        return by_codeword[_reversed_bits(self.width)]

    @cached_property
    def entries(self) -> list[int]:
        """`single` for look-ups one by one."""
        entries: list[int] = self.single.tolist()
        return entries

    @cached_property
    def multi(self) -> npt.NDArray[np.uint64]:
        """For every window: up to four whole symbols of 8 bits, then 8 bits total length, then their number.

        A window has `width` bits, or more where that is short.

        Empty for alphabets of more than 256 symbols.
        """
        if self.lengths.size > 256:
            return np.zeros(0, np.uint64)

        width = max(self.width, _MULTI_BITS)
        window = np.arange(1 << width, dtype=np.int64)
        bits, number = np.zeros_like(window), np.zeros_like(window)

        symbols, more = np.zeros(window.size, np.uint64), np.ones(window.size, np.bool_)
        for k in range(_MULTI_SYMBOLS):
            entry = self.single[window >> bits & (1 << self.width) - 1].astype(np.int64)
            more &= bits + (entry >> 16) <= width
            symbols[more] |= (entry[more] & 255).astype(np.uint64) << np.uint64(8 * k)
            bits[more] += entry[more] >> 16
            number += more

        packed = symbols | bits.astype(np.uint64) << np.uint64(32) | number.astype(np.uint64) << np.uint64(40)
        return np.asarray(packed, np.uint64)

    def pack(self) -> bytes:
        """The table as stored."""
        return pack_varint(zigzag(self.lowest)) + pack_varint(self.lengths.size) + self.packed

    @classmethod
    def read(cls, reader: PartReader) -> "CodeTable":
        """Undo `pack`.

        Raises:
            DamagedArtifact: The lengths are no prefix code, or the alphabet is too large.
        """
        head = reader.buffer[reader.position : reader.position + 2]
        if len(head) == 2 and head[0] < 128 and head[1] < 128:  # the usual case, of one byte each
            reader.take("tables", 2)
            lowest, size = unzigzag(head[0]), head[1]
        else:
            lowest, size = unzigzag(unpack_varint(reader, "tables")), unpack_varint(reader, "tables")

        if size > MAX_ALPHABET or abs(lowest) > MAX_ALPHABET:
            raise DamagedArtifact(
                f"code table of {size:,} symbols from {lowest:,}; the limit is {MAX_ALPHABET:,}"
            )
        if not size and lowest:
            raise DamagedArtifact(f"code table of no symbols starts at {lowest:,}; expected 0")

        lengths = unpack_code_lengths(reader.take("tables", (size + 1) // 2), alphabet=size)
        check_code_lengths(lengths, n_symbols=0)
        if size and not (lengths.item(0) and lengths.item(-1)):
            raise DamagedArtifact("code table starts or ends with an unused symbol")

        return cls(lowest, lengths)


@cache
def _reversed_bits(width: int) -> npt.NDArray[np.int64]:
    """Every number of `width` bits read backwards: codewords are written first bit lowest."""
    forward, backward = np.arange(1 << width), np.zeros(1 << width, np.int64)
    for bit in range(width):
        backward |= (forward >> bit & 1) << (width - 1 - bit)
    return backward
