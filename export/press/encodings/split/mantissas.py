"""A number of bits of each value, one after the other: what is left of mantissas."""

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.bits import unpack_fixed_width
from modelpress.export.errors import DamagedArtifact

_AT_ONCE = 1 << 16  # a multiple of 8, so that every piece ends with a byte


def packed(values: npt.NDArray[np.unsignedinteger], bits: int) -> bytes:
    """`bits` of each value, at most 52, low half first."""
    pieces = []
    for start in range(0, values.size, _AT_ONCE):
        piece = values[start : start + _AT_ONCE].astype("<u8")
        flat = np.unpackbits(piece.view(np.uint8), bitorder="little").reshape(-1, 64)[:, :bits]
        pieces.append(np.packbits(flat.reshape(-1), bitorder="little").tobytes())
    return b"".join(pieces)


def unpacked(stream: bytes, bits: int, count: int) -> npt.NDArray[np.int64]:
    """Undo `packed`.

    Raises:
        DamagedArtifact: The stream has another length.
    """
    if len(stream) != (count * bits + 7) // 8:
        raise DamagedArtifact(f"mantissas take {len(stream):,} bytes; expected {(count * bits + 7) // 8:,}")

    values = np.zeros(count, np.int64)
    for start in range(0, count, _AT_ONCE):
        n = min(_AT_ONCE, count - start)
        first = start * bits // 8
        piece = stream[first : first + (n * bits + 7) // 8]
        values[start : start + n] = unpack_fixed_width(piece, bits=bits, count=n)
    return values
