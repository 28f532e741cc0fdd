"""Images as PNG files, the same bytes each time."""

import struct
import zlib

import numpy as np
import numpy.typing as npt

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 3: 2}  # grey, RGB
PNG_CHANNELS = frozenset(_COLOUR_TYPES)


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """An image of shape ``(C, H, W)``, one or three channels, with 8 bits each and without row filters.

    Raises:
        ValueError: It has another number of channels, or no pixels.

    Example:
        >>> encode_png(np.zeros((1, 2, 2), np.uint8))[:8]
        b'\\x89PNG\\r\\n\\x1a\\n'

    Source: ISO/IEC 15948:2004, "Portable Network Graphics".
    """
    channels, height, width = pixels.shape
    if channels not in _COLOUR_TYPES or not pixels.size:
        raise ValueError(f"an image of shape {pixels.shape} is no grey or RGB image")

    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    rows = pixels.transpose(1, 2, 0).reshape(height, width * channels)
    filtered = np.hstack([np.zeros((height, 1), np.uint8), rows])  # filter type 0 before each row
    parts = {b"IHDR": header, b"IDAT": zlib.compress(filtered.tobytes(), 9), b"IEND": b""}

    return _SIGNATURE + b"".join(_chunk(kind, content) for kind, content in parts.items())


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
