"""Bits in bytes, least significant bit first: the order in which every stream of an artifact is written.

Bit ``k`` of a stream is bit ``k % 8`` of byte ``k // 8``. Unused bits of the last byte are zero.
"""

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import DamagedArtifact

UInt8Array = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.integer]

_MAX_CODEWORD_BITS = 32


def pack_codewords(codewords: IntArray, lengths: IntArray) -> bytes:
    """Concatenate codewords, first bit of each first.

    Args:
        codewords: Shape ``(n,)``; codeword ``i`` uses its ``lengths[i]`` low bits.
        lengths: Shape ``(n,)``; 0 to 32 bits each.

    Returns:
        ``ceil(sum(lengths) / 8)`` bytes.

    Example:
        >>> pack_codewords(np.array([1, 2]), np.array([1, 3])).hex()   # 1, then 0 1 0
        '05'
    """
    lengths = lengths.astype(np.int64)
    if lengths.size == 0:
        return b""
    if int(lengths.max()) > _MAX_CODEWORD_BITS:
        raise ValueError(f"codewords are at most {_MAX_CODEWORD_BITS} bits long, got {int(lengths.max())}")

    end = np.cumsum(lengths)
    start = end - lengths
    n_bits = int(end[-1])
    word, shift = start >> 6, (start & 63).astype(np.uint64)
    bits = codewords.astype(np.uint64)
    words = np.zeros(n_bits // 64 + 2, np.uint64)
    first = np.flatnonzero(np.diff(word, prepend=-1))  # first codeword of every 64-bit word
    words[word[first]] = np.bitwise_or.reduceat(bits << shift, first)
    spill = np.flatnonzero((start & 63) + lengths > 64)  # at most one per word, so no index repeats
    words[word[spill] + 1] |= bits[spill] >> (np.uint64(64) - shift[spill])

    return words.astype("<u8").tobytes()[: (n_bits + 7) // 8]


def pack_fixed_width(values: IntArray, *, bits: int) -> bytes:
    """Pack non-negative integers below ``2**bits``, `bits` bits each.

    Example:
        >>> pack_fixed_width(np.array([1, 2, 3]), bits=4).hex()
        '2103'
    """
    return pack_codewords(values, np.full(values.size, bits))


def unpack_fixed_width(stream: bytes, *, bits: int, count: int) -> npt.NDArray[np.int64]:
    """Undo `pack_fixed_width`.

    Raises:
        DamagedArtifact: The stream has another length than `count` values need, or padding is not zero.

    Example:
        >>> unpack_fixed_width(bytes.fromhex("2103"), bits=4, count=3)
        array([1, 2, 3])
    """
    check_stream_end(stream, n_bits=bits * count)
    flat = np.unpackbits(np.frombuffer(stream, np.uint8), count=bits * count, bitorder="little")
    values = np.zeros(count, np.int64)
    for plane in range(bits):
        values |= flat[plane::bits].astype(np.int64) << plane
    return values


def check_stream_end(stream: bytes, *, n_bits: int) -> None:
    """Refuse a stream whose length is not that of `n_bits` bits, or whose last unused bits are set.

    Raises:
        DamagedArtifact: As said.
    """
    expected = (n_bits + 7) // 8
    if len(stream) != expected:
        raise DamagedArtifact(f"bit stream is {len(stream):,} bytes, its symbols take {expected:,}")
    if n_bits % 8 and stream[-1] >> (n_bits % 8):
        raise DamagedArtifact("padding bits after the last symbol are not zero")


def windows_at_every_bit(stream: UInt8Array, *, first_byte: int, n_bytes: int, bits: int) -> IntArray:
    """The `bits` bits that start at every bit position of a byte range; beyond the end reads zeros.

    Args:
        stream: Shape ``(n,)``.
        first_byte: Start of the range.
        n_bytes: Length of the range.
        bits: Window width, 1 to 16.

    Returns:
        Shape ``(8 * n_bytes,)``, dtype uint32.

    Example:
        >>> windows_at_every_bit(np.array([0b101], np.uint8), first_byte=0, n_bytes=1, bits=2)[:3]
        array([1, 2, 1], dtype=uint32)
    """
    chunk = np.zeros(n_bytes + 2, np.uint32)
    available = stream[first_byte : first_byte + n_bytes + 2]
    chunk[: available.size] = available
    word = chunk[:-2] | chunk[1:-1] << np.uint32(8) | chunk[2:] << np.uint32(16)
    shifted = word[:, None] >> np.arange(8, dtype=np.uint32)  # (n_bytes, 8)
    return np.asarray(shifted & np.uint32((1 << bits) - 1), np.uint32).ravel()
