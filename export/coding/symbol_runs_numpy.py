"""Runs of Huffman symbols with NumPy alone: the same results as the compiled functions, slower."""

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.bits import pack_codewords, windows_at_every_bit
from modelpress.export.coding.code_table import CodeTable
from modelpress.export.errors import DamagedArtifact

UInt8Array = npt.NDArray[np.uint8]


def encode_lane(
    symbols: npt.NDArray[np.integer],
    codewords: npt.NDArray[np.uint32],
    lengths: npt.NDArray[np.uint8],
    shift: int,
) -> tuple[UInt8Array, int]:
    """Codewords behind `shift` zero bits; returns the bytes and the number of bits without these."""
    bits = lengths[symbols].astype(np.int64)
    words = codewords[symbols].astype(np.uint64)
    bits[0] += shift
    words[0] <<= np.uint64(shift)
    return np.frombuffer(pack_codewords(words, bits), np.uint8), int(bits.sum()) - shift


SHORT_RUN = 700  # symbols; below, one look-up after the other is faster than many array operations


def decode_short_run(
    stream: UInt8Array, entries: list[int], position: int, count: int
) -> tuple[list[int], int]:
    """What `decode_stream` does, symbol by symbol.

    Args:
        stream: Without padding.
        entries: `CodeTable.entries`.
        position: The bit to start at.
        count: Number of symbols.

    Raises:
        DamagedArtifact: The stream ends before the last symbol.
    """
    width = len(entries).bit_length() - 1
    first_byte, bit = divmod(position, 8)
    n_bytes = (bit + count * width + 7) // 8
    bits = int.from_bytes(stream[first_byte : first_byte + n_bytes].tobytes(), "little") >> bit

    mask, done, symbols = len(entries) - 1, 0, []
    for _ in range(count):
        entry = entries[bits >> done & mask]
        symbols.append(entry & 0xFFFF)
        done += entry >> 16

    if position + done > 8 * stream.size:
        raise DamagedArtifact("bit stream ends inside its last symbol")

    return symbols, position + done


_BLOCK_BYTES = 1 << 14  # the tables of one block stay in the cache
_DOUBLINGS = 6


def decode_stream(
    stream: UInt8Array, single: npt.NDArray[np.uint32], position: int, count: int
) -> tuple[npt.NDArray[np.uint16], int]:
    """Decode `count` symbols from bit `position` on, block by block; returns them and the bit after the last.

    Where a symbol starts depends on all before it. So every bit position of a block is decoded as if a
    symbol started there, which gives "next position" pointers; doubled six times these jump 64 symbols,
    a short walk over the long jumps finds every 64th start, and the shorter jumps fill in the rest.

    Args:
        stream: Without padding.
        single: `CodeTable.single`.

    Raises:
        DamagedArtifact: The stream ends before the last symbol.
    """
    width = single.size.bit_length() - 1
    parts: list[npt.NDArray[np.uint16]] = []

    found = 0
    while found < count:
        first_byte = position // 8
        n_bytes = min(_BLOCK_BYTES, count * width // 8 + 3, stream.size - first_byte)
        if n_bytes <= 0:
            raise DamagedArtifact(f"bit stream ends after {found:,} of {count:,} symbols")

        window = windows_at_every_bit(stream, first_byte=first_byte, n_bytes=n_bytes, bits=width)
        entries = single[window]
        starts, after = _symbol_starts(entries >> np.uint32(16), position - 8 * first_byte)
        if starts.size > count - found:
            after = int(starts[count - found])
            starts = starts[: count - found]

        parts.append(entries[starts].astype(np.uint16))  # the low half is the symbol
        found += starts.size
        position = 8 * first_byte + after

    if position > 8 * stream.size:
        raise DamagedArtifact("bit stream ends inside its last symbol")

    return np.concatenate(parts) if parts else np.zeros(0, np.uint16), position


def _symbol_starts(length_at: npt.NDArray[np.uint32], start: int) -> tuple[npt.NDArray[np.int64], int]:
    """All symbol starts of one block, and the first start beyond it."""
    end = length_at.size
    beyond = np.arange(end + 1, dtype=np.int32)
    beyond[:end] += length_at.astype(np.int32)
    hop = np.minimum(beyond, end)  # position `end` points to itself
    hops = [hop]

    for _ in range(_DOUBLINGS):
        hops.append(hops[-1][hops[-1]])

    anchors = []
    while start < end:
        anchors.append(start)
        start = int(hops[-1][start])

    starts = np.array(anchors, np.int64)
    for shorter in reversed(hops[:-1]):
        starts = np.stack([starts, shorter[starts]], axis=1).ravel()

    starts = starts[starts < end]
    return starts, int(beyond[starts[-1]])


_TOGETHER = 32  # lanes


def decode_lanes_in_step(
    padded: UInt8Array, starts: npt.NDArray[np.int64], table: CodeTable, out: npt.NDArray[np.unsignedinteger]
) -> npt.NDArray[np.int64]:
    """Decode many lanes at once: every step takes up to four symbols from each.

    Args:
        padded: The stream and enough zero bytes.
        starts: Shape ``(lanes,)``; first byte of each lane.
        table: The code of all lanes.
        out: Shape ``(lanes, symbols)``; filled.

    Returns:
        Shape ``(lanes,)``; the bit after each lane's last symbol.
    """
    lanes, per_lane = out.shape
    words = np.lib.stride_tricks.as_strided(  # 32 bits from every byte on
        padded[:4].view("<u4"), shape=(padded.size - 4,), strides=(1,), writeable=False
    )
    symbols_of = (table.multi & np.uint64(0xFFFFFFFF)).astype("<u4")
    bits_of = (table.multi >> np.uint64(32) & np.uint64(255)).astype(np.int64)
    number_of = (table.multi >> np.uint64(40)).astype(np.uint8)
    mask = np.uint32(table.multi.size - 1)
    position, found = starts * 8, np.zeros(lanes, np.int64)
    symbols: list[npt.NDArray[np.uint32]] = []

    numbers: list[npt.NDArray[np.uint8]] = []
    while len(symbols) < -(-per_lane // 4) or found.min() < per_lane:
        window = words[position >> 3] >> (position & 7).astype(np.uint32) & mask
        number = number_of[window]
        symbols.append(symbols_of[window])
        numbers.append(number)
        position += bits_of[window]
        found += number

    for first in range(0, lanes, _TOGETHER):  # what follows takes many bytes for each step
        some = slice(first, first + _TOGETHER)
        number = np.stack([step[some] for step in numbers], axis=1).astype(np.int32)  # (lanes, steps)
        surplus = np.maximum(np.cumsum(number, axis=1, dtype=np.int32) - per_lane, 0)
        chosen = np.arange(4) < np.maximum(number - surplus, 0)[:, :, None]
        bytes_of = np.stack([step[some] for step in symbols], axis=1).view(np.uint8)
        out[some] = bytes_of.reshape(*chosen.shape)[chosen].reshape(-1, per_lane)
        position[some] = starts[some] * 8 + table.lengths[out[some]].sum(axis=1, dtype=np.int64)

    return position
