"""LZMA streams without any header: FORMAT.md, "LZMA streams"."""

import lzma
from collections.abc import Iterable

from modelpress.export.errors import DamagedArtifact

PLAIN = 0  # properties without any context: the best for a few kilobytes
MAX_PROPERTIES = 224
MAX_LITERAL_BITS = 4  # of context and position together, as liblzma has it
_LEAST_WINDOW = 1 << 12  # that liblzma takes


def compress(data: bytes, properties: int = PLAIN) -> bytes:
    """The stream, its end mark included.

    Example:
        >>> len(compress(bytes(1000))) < 20
        True
    """
    return lzma.compress(data, format=lzma.FORMAT_RAW, filters=[_filter(len(data), properties)])


def smallest(data: bytes, candidates: Iterable[int]) -> tuple[int, bytes]:
    """Properties and stream of the shortest."""
    streams = [(properties, compress(data, properties)) for properties in candidates]
    return min(streams, key=lambda found: len(found[1]))


def decompress(stream: bytes, n_bytes: int, properties: int = PLAIN, *, what: str) -> bytes:
    """Undo `compress` without ever producing more than was declared.

    Raises:
        DamagedArtifact: The stream gives another number of bytes, or is damaged.

    Example:
        >>> decompress(compress(b"weights"), 7, what="graph")
        b'weights'
    """
    if not are_properties(properties):
        raise DamagedArtifact(f"{what}: LZMA properties {properties} are not defined")

    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[_filter(n_bytes, properties)])
    try:
        # one byte more than is right, so that too many are noticed, and no more are ever made
        data = decoder.decompress(stream, n_bytes + 1)
    except lzma.LZMAError as error:
        raise DamagedArtifact(f"{what} cannot be decompressed: {error}") from error

    if len(data) != n_bytes or not decoder.eof or decoder.unused_data:
        raise DamagedArtifact(f"{what} does not decompress to the {n_bytes:,} bytes declared")
    return data


def are_properties(properties: int) -> bool:
    """Whether a byte says how many bits of context there are, and not too many."""
    return properties <= MAX_PROPERTIES and sum(_contexts(properties)[:2]) <= MAX_LITERAL_BITS


def _contexts(properties: int) -> tuple[int, int, int]:
    return properties % 9, properties // 9 % 5, properties // 45


def _filter(n_bytes: int, properties: int) -> dict[str, int]:
    literal, position, positions = _contexts(properties)
    return {
        "id": lzma.FILTER_LZMA1,
        "preset": 9 | lzma.PRESET_EXTREME,
        "lc": literal,
        "lp": position,
        "pb": positions,
        "dict_size": max(n_bytes, _LEAST_WINDOW),
    }
