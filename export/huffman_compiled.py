"""The Huffman decoder compiled with numba; imported only where the extra `fast` is installed."""

import numpy as np
import numpy.typing as npt
from numba import njit

from export.errors import DamagedArtifact


def decode_stream(
    stream: npt.NDArray[np.uint8],
    symbol_of: npt.NDArray[np.int32],
    length_of: npt.NDArray[np.uint8],
    count: int,
) -> tuple[npt.NDArray[np.int32], int]:
    """Decode `count` symbols; same results as the NumPy path.

    Returns:
        The symbols, and the bit position after the last one.

    Raises:
        DamagedArtifact: The stream ends before the last symbol starts.
    """
    symbols = np.empty(count, np.int32)
    found, position = _decode(stream, symbol_of, length_of, symbols)
    if found < count:
        raise DamagedArtifact(f"bit stream ends after {found:,} of {count:,} symbols")
    return symbols, position


@njit(cache=True)
def _decode(stream, symbol_of, length_of, symbols):  # type: ignore[no-untyped-def]
    mask = np.uint64(symbol_of.size - 1)
    pending, n_pending, next_byte, position = np.uint64(0), 0, 0, 0
    for i in range(symbols.size):
        if position >= 8 * stream.size:
            return i, position
        while n_pending <= 48 and next_byte < stream.size:
            pending |= np.uint64(stream[next_byte]) << np.uint64(n_pending)
            n_pending += 8
            next_byte += 1
        window = pending & mask
        length = length_of[window]
        symbols[i] = symbol_of[window]
        pending >>= np.uint64(length)
        n_pending = max(n_pending - length, 0)
        position += length
    return symbols.size, position
