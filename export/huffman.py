"""Canonical, length-limited Huffman codes over small alphabets.

A code is fully described by its codeword lengths, so only these are stored (4 bits each). Codewords are
assigned in order of (length, symbol) and written from their most significant bit on, as in RFC 1951,
section 3.2.2, into a stream whose bytes fill from the least significant bit on.

Two alphabets are special: with no used symbol there is nothing to write, and with exactly one used symbol
its stored length is 1 but its codeword is empty, so the stream has no bytes at all.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

from export.bitstream import (
    check_stream_end,
    pack_codewords,
    pack_fixed_width,
    unpack_fixed_width,
    windows_at_every_bit,
)
from export.errors import DamagedArtifact

MAX_CODEWORD_BITS = 15  # FORMAT.md, "Code tables": a length is stored in 4 bits

LengthArray = npt.NDArray[np.uint8]
SymbolArray = npt.NDArray[np.int32]
StreamDecoder = Callable[
    [npt.NDArray[np.uint8], npt.NDArray[np.int32], npt.NDArray[np.uint8], int], tuple[SymbolArray, int]
]

_COMPILED_FROM = 1 << 18  # symbols; below, importing the compiler costs more than it saves


def code_lengths(counts: npt.NDArray[np.int64], *, max_bits: int = MAX_CODEWORD_BITS) -> LengthArray:
    """Optimal codeword lengths under a length limit.

    Minimises ``sum(counts * lengths)`` subject to ``lengths <= max_bits`` and Kraft's equality.

    Args:
        counts: Shape ``(alphabet,)``; how often each symbol occurs.
        max_bits: Longest codeword allowed, in bits.

    Returns:
        Shape ``(alphabet,)``; 0 for symbols that do not occur.

    Raises:
        ValueError: More symbols are used than ``2**max_bits`` codewords.

    Example:
        >>> code_lengths(np.array([8, 0, 2, 1]))
        array([1, 0, 2, 2], dtype=uint8)

    Source: Larmore and Hirschberg 1990, "A fast algorithm for optimal length-limited Huffman codes"
    (package-merge).
    """
    used = np.flatnonzero(counts)
    lengths = np.zeros(counts.size, np.uint8)
    if used.size <= 1:
        lengths[used] = 1
        return lengths
    if used.size > 1 << max_bits:
        raise ValueError(f"{used.size} symbols need codewords longer than {max_bits} bits")
    by_weight = used[np.argsort(counts[used], kind="stable")]
    coins = counts[by_weight].astype(np.int64)
    coins_among_merged = []  # per level: running number of original coins among the cheapest items
    items = coins
    for _ in range(max_bits):
        order = np.argsort(items, kind="stable")
        coins_among_merged.append(np.cumsum(order < coins.size))
        merged = items[order]
        packages = merged[: merged.size // 2 * 2].reshape(-1, 2).sum(axis=1)
        items = np.concatenate([coins, packages])
    take = 2 * used.size - 2
    for running in reversed(coins_among_merged):
        n_coins = int(running[take - 1]) if take else 0
        lengths[by_weight[:n_coins]] += 1
        take = 2 * (take - n_coins)
    return lengths


def canonical_codewords(lengths: LengthArray) -> npt.NDArray[np.uint32]:
    """Codewords of a canonical code, bit-reversed so that they can be written low bit first.

    Example:
        >>> canonical_codewords(np.array([1, 0, 2, 2], np.uint8))   # 0, -, 10, 11
        array([0, 0, 1, 3], dtype=uint32)
    """
    codewords = np.zeros(lengths.size, np.uint32)
    code, previous = 0, 0
    for symbol in np.lexsort((np.arange(lengths.size), lengths)):
        length = int(lengths[symbol])
        if length == 0:
            continue
        code <<= length - previous
        codewords[symbol] = int(f"{code:0{length}b}"[::-1], 2)
        code, previous = code + 1, length
    return codewords


def check_code_lengths(lengths: LengthArray, *, n_symbols: int) -> None:
    """Refuse lengths that describe no usable prefix code.

    Raises:
        DamagedArtifact: The code is over- or under-subscribed, or empty although symbols follow.
    """
    used = lengths[lengths > 0].astype(np.int64)
    if used.size == 0:
        if n_symbols:
            raise DamagedArtifact(f"code table has no symbol, but {n_symbols:,} symbols follow")
        return
    if used.size == 1:
        if used[0] != 1:
            raise DamagedArtifact(f"one-symbol code table must store length 1, got {used[0]}")
        return
    kraft = int((1 << (MAX_CODEWORD_BITS - used)).sum())  # in units of 2**-15
    if kraft != 1 << MAX_CODEWORD_BITS:
        kind = "over" if kraft > 1 << MAX_CODEWORD_BITS else "under"
        raise DamagedArtifact(f"code table is {kind}-subscribed: Kraft sum {kraft}/{1 << MAX_CODEWORD_BITS}")


def pack_code_lengths(lengths: LengthArray) -> bytes:
    """Store codeword lengths, 4 bits each."""
    return pack_fixed_width(lengths, bits=4)


def unpack_code_lengths(data: bytes, *, alphabet: int) -> LengthArray:
    """Undo `pack_code_lengths`."""
    return unpack_fixed_width(data, bits=4, count=alphabet).astype(np.uint8)


def encode_symbols(symbols: npt.NDArray[np.integer], lengths: LengthArray) -> bytes:
    """Write symbols with the canonical code of these lengths.

    Example:
        >>> encode_symbols(np.array([0, 2, 0, 3]), np.array([1, 0, 2, 2], np.uint8)).hex()   # 0 10 0 11
        '32'
    """
    if np.count_nonzero(lengths) <= 1:
        return b""
    return pack_codewords(canonical_codewords(lengths)[symbols], lengths[symbols])


def decode_symbols(stream: bytes, lengths: LengthArray, *, count: int) -> SymbolArray:
    """Undo `encode_symbols`.

    Raises:
        DamagedArtifact: The table is no prefix code, the stream ends early, or bits are left over.

    Example:
        >>> decode_symbols(bytes.fromhex("32"), np.array([1, 0, 2, 2], np.uint8), count=4)
        array([0, 2, 0, 3], dtype=int32)
    """
    check_code_lengths(lengths, n_symbols=count)
    if count == 0 or np.count_nonzero(lengths) == 1:
        check_stream_end(stream, n_bits=0)
        return np.full(count, np.flatnonzero(lengths)[0] if count else 0, np.int32)
    if count > 8 * len(stream):  # every codeword has a bit: also bounds what is allocated
        raise DamagedArtifact(f"bit stream of {len(stream):,} bytes cannot hold {count:,} symbols")
    symbol_of, length_of = _lookup_tables(lengths)
    decode = _stream_decoder(compiled=count >= _COMPILED_FROM)
    symbols, n_bits = decode(np.frombuffer(stream, np.uint8), symbol_of, length_of, count)
    check_stream_end(stream, n_bits=n_bits)
    return symbols


def _lookup_tables(lengths: LengthArray) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Symbol and length for every window of ``max(lengths)`` bits."""
    width = int(lengths.max())
    codewords = canonical_codewords(lengths)
    symbol_of = np.zeros(1 << width, np.int32)
    length_of = np.zeros(1 << width, np.uint8)
    for symbol in np.flatnonzero(lengths):
        stride = 1 << int(lengths[symbol])
        symbol_of[codewords[symbol] :: stride] = symbol
        length_of[codewords[symbol] :: stride] = lengths[symbol]
    return symbol_of, length_of


@cache
def _stream_decoder(*, compiled: bool) -> StreamDecoder:
    if not compiled:
        return _decode_stream_numpy
    try:
        from export.huffman_compiled import decode_stream
    except (ImportError, RuntimeError):  # the extra `fast` is missing, or has no place for its cache
        return _decode_stream_numpy
    return decode_stream


_BLOCK_BYTES = 1 << 14  # the tables of one block stay in the cache
_DOUBLINGS = 6


def _decode_stream_numpy(
    stream: npt.NDArray[np.uint8],
    symbol_of: npt.NDArray[np.int32],
    length_of: npt.NDArray[np.uint8],
    count: int,
) -> tuple[SymbolArray, int]:
    """Decode block by block; returns the symbols and the bit position after the last one.

    Where a symbol starts depends on all before it. So every bit position of a block is decoded as if a
    symbol started there, which gives "next position" pointers; doubled six times these jump 64 symbols,
    a short walk over the long jumps finds every 64th start, and the shorter jumps fill in the rest.
    """
    width = symbol_of.size.bit_length() - 1
    parts: list[npt.NDArray[np.int32]] = []
    found, position = 0, 0  # position: bit where the next symbol starts
    while found < count:
        first_byte = position // 8
        n_bytes = min(_BLOCK_BYTES, stream.size - first_byte)
        if n_bytes <= 0:
            raise DamagedArtifact(f"bit stream ends after {found:,} of {count:,} symbols")
        window = windows_at_every_bit(stream, first_byte=first_byte, n_bytes=n_bytes, bits=width)
        starts, after = _symbol_starts(length_of[window], position - 8 * first_byte)
        if starts.size > count - found:
            after = int(starts[count - found])
            starts = starts[: count - found]
        parts.append(symbol_of[window[starts]])
        found += starts.size
        position = 8 * first_byte + after
    return np.concatenate(parts), position


def _symbol_starts(length_at: npt.NDArray[np.uint8], start: int) -> tuple[npt.NDArray[np.int64], int]:
    """All symbol starts of one block, and the first start beyond it."""
    end = length_at.size
    beyond = np.arange(end + 1, dtype=np.int32)
    beyond[:end] += length_at
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
