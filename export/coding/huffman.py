"""Canonical, length-limited Huffman codes over small alphabets.

A code is fully described by its codeword lengths, so only these are stored (4 bits each). Codewords are
assigned in order of (length, symbol) and written from their most significant bit on, as in RFC 1951,
section 3.2.2, into a stream whose bytes fill from the least significant bit on.

Two alphabets are special: with no used symbol there is nothing to write, and with exactly one used symbol
its stored length is 1 but its codeword is empty, so the stream has no bytes at all.
"""

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.bits import check_stream_end
from modelpress.export.errors import DamagedArtifact

MAX_CODEWORD_BITS = 15  # FORMAT.md, "Code tables": a length is stored in 4 bits
_FEW = 48  # symbols; up to there lists are faster than arrays
_TWO_LENGTHS = tuple(bytes([byte & 15, byte >> 4]) for byte in range(256))
_KRAFT = (0, *(1 << MAX_CODEWORD_BITS - length for length in range(1, 16)))  # in units of 2**-15

LengthArray = npt.NDArray[np.uint8]


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
    taken = _coins_of_few if used.size <= _FEW else _coins_of_many
    for n_coins in taken(coins, max_bits):
        lengths[by_weight[:n_coins]] += 1

    return lengths


def _coins_of_few(weights: npt.NDArray[np.int64], max_bits: int) -> list[int]:
    """How many of the cheapest coins are taken on every level; of few symbols, as most tables have."""
    # an item is twice its weight, and one more if it is a package: coins come first among equals
    coins = [2 * weight for weight in weights.tolist()]
    most = 2 * len(coins) - 2
    levels, items = [], coins

    while len(levels) < max_bits:
        levels.append(items)
        whole = len(items) // 2 * 2
        packages = zip(items[:whole:2], items[1:whole:2], strict=True)
        items = sorted(coins + [((first >> 1) + (second >> 1) << 1) + 1 for first, second in packages])[:most]
        if items == levels[-1]:  # from here on all levels are the same
            levels += [items] * (max_bits - len(levels))

    taken, take = [], most
    for level in reversed(levels):
        taken.append(take - sum(item & 1 for item in level[:take]))
        take = 2 * (take - taken[-1])
    return taken


def _coins_of_many(coins: npt.NDArray[np.int64], max_bits: int) -> list[int]:
    """The same in arrays."""
    coins_among_merged = []  # per level: running number of original coins among the cheapest items
    items = coins
    for _ in range(max_bits):
        order = np.argsort(items, kind="stable")
        coins_among_merged.append(np.cumsum(order < coins.size))
        merged = items[order]
        packages = merged[: merged.size // 2 * 2].reshape(-1, 2).sum(axis=1)
        items = np.concatenate([coins, packages])

    taken, take = [], 2 * coins.size - 2
    for running in reversed(coins_among_merged):
        taken.append(int(running[take - 1]) if take else 0)
        take = 2 * (take - taken[-1])
    return taken


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
    stored = lengths.tobytes()  # tables are short: bytes beat an array
    n_used = len(stored) - stored.count(0)
    if n_used == 0:
        if n_symbols:
            raise DamagedArtifact(f"code table has no symbol, but {n_symbols:,} symbols follow")
        return

    kraft = sum(map(_KRAFT.__getitem__, stored))
    if n_used == 1:
        if kraft != _KRAFT[1]:
            raise DamagedArtifact(f"one-symbol code table must store length 1, got {max(stored)}")
        return
    if kraft != 1 << MAX_CODEWORD_BITS:
        kind = "over" if kraft > 1 << MAX_CODEWORD_BITS else "under"
        raise DamagedArtifact(f"code table is {kind}-subscribed: Kraft sum {kraft}/{1 << MAX_CODEWORD_BITS}")


def pack_code_lengths(lengths: LengthArray) -> bytes:
    """Store codeword lengths, 4 bits each."""
    even = np.append(lengths, np.zeros(lengths.size % 2, np.uint8))
    return bytes(even[::2] | even[1::2] << 4)


def unpack_code_lengths(data: bytes, *, alphabet: int) -> LengthArray:
    """Undo `pack_code_lengths`.

    Raises:
        DamagedArtifact: There are more or fewer bytes, or padding is not zero.
    """
    check_stream_end(data, n_bits=4 * alphabet)
    return np.frombuffer(b"".join(map(_TWO_LENGTHS.__getitem__, data)), np.uint8, count=alphabet)
