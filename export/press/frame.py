"""The outermost layer of a `.press` file: header, checksum, chunks. See FORMAT.md, "File" and "Chunks"."""

import hashlib
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from modelpress.export.coding import lzma_stream
from modelpress.export.coding.byte_parts import PartReader
from modelpress.export.errors import (
    ChecksumMismatch,
    DamagedArtifact,
    ModelError,
    NotAnArtifact,
    TruncatedArtifact,
    UnsupportedVersion,
)
from modelpress.export.files.kinds import PRESS_MAGIC

MAGIC = PRESS_MAGIC
VERSION = (1, 4)  # the newest that is written
LEAST_MINOR = 2  # that is written: a file says no more than it needs
GRAPH, DIRECTORY, META, TABLES, SQUEEZED, DATA = b"GRPH", b"TDIR", b"META", b"TABL", b"TABZ", b"DATA"
_KNOWN = (GRAPH, DIRECTORY, META, TABLES, SQUEEZED, DATA)

HEADER = struct.Struct("<8sHHIQ32s")  # magic, major, minor, chunks, total length, SHA-256
CHUNK = struct.Struct("<4sQ")
_DIGEST_AT = HEADER.size - 32
_META_HEAD = struct.Struct("<II")  # bytes of directory and graph

# Limits of version 1; FORMAT.md states each beside its field
MAX_CHUNKS = 64
MAX_GRAPH_BYTES = 8 << 20
MAX_DIRECTORY_BYTES = 8 << 20
MAX_TABLES_BYTES = 1 << 20
_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Chunk:
    """Where the payload of a chunk lies, in bytes from the start of the file."""

    start: int
    n_bytes: int


@dataclass(frozen=True)
class Frame:
    """What a file says before its chunks are opened.

    Attributes:
        chunks: The known ones, by type.
    """

    version: tuple[int, int]
    size_bytes: int
    chunks: Mapping[bytes, Chunk]


def seal(file: IO[bytes], n_chunks: int, *, minor: int = LEAST_MINOR) -> int:
    """Write the header in front of finished chunks, over the place kept free; returns the size of the file.

    Args:
        file: Readable and writable; `HEADER` bytes were left free at its start.
        n_chunks: How many follow.
        minor: Minor version.
    """
    total = file.seek(0, 2)
    header = HEADER.pack(MAGIC, VERSION[0], minor, n_chunks, total, bytes(32))
    file.seek(0)
    file.write(header)
    file.flush()
    digest = _digest(file, total)
    file.seek(_DIGEST_AT)
    file.write(digest)
    file.flush()

    return total


def read_frame(file: IO[bytes]) -> Frame:
    """Check everything outside the chunks, the checksum of the whole file included.

    Raises:
        ArtifactError: The file cannot be trusted.
    """
    file.seek(0)
    head = file.read(HEADER.size)
    size = file.seek(0, 2)

    if head[: len(MAGIC)] != MAGIC:
        raise NotAnArtifact(f"not a .press file: it starts with {head[:8].hex(' ') or 'nothing'}")
    if len(head) < HEADER.size:
        raise TruncatedArtifact(f"file ends inside its header: {len(head)} of {HEADER.size} bytes")

    _, major, minor, n_chunks, total, digest = HEADER.unpack(head)
    if major != VERSION[0]:
        raise UnsupportedVersion(f"format version {major}.{minor}; this reader knows {VERSION[0]}.x")
    if size != total:
        kind = "shorter" if size < total else "longer"
        raise TruncatedArtifact(
            f"file is {kind} than it declares: {size:,} of {total:,} bytes; copy it again"
        )

    if _digest(file, total) != digest:
        raise ChecksumMismatch("SHA-256 does not match: bytes changed since the file was written")

    return Frame((major, minor), size, dict(_read_chunks(file, n_chunks, total)))


def read_chunk(file: IO[bytes], chunk: Chunk) -> bytes:
    """The payload of a chunk."""
    file.seek(chunk.start)
    return file.read(chunk.n_bytes)


def deflate(data: bytes) -> bytes:
    """Compress the payload of a chunk."""
    return struct.pack("<I", len(data)) + zlib.compress(data, 9)


def pack_meta(directory: bytes, graph: bytes) -> bytes:
    """Compress directory and graph together: they name the same tensors."""
    return _META_HEAD.pack(len(directory), len(graph)) + lzma_stream.compress(directory + graph)


def unpack_meta(payload: bytes) -> tuple[bytes, bytes]:
    """Undo `pack_meta`.

    Raises:
        DamagedArtifact: The stream is damaged, of another size, or one of both is larger than a reader accepts.
    """
    reader = PartReader(payload)
    n_directory, n_graph = reader.unpack("II")
    for what, declared, limit in (
        ("tensor directory", n_directory, MAX_DIRECTORY_BYTES),
        ("graph", n_graph, MAX_GRAPH_BYTES),
    ):
        _check_declared(what, declared, limit)

    stream = reader.rest("payload")
    both = lzma_stream.decompress(stream, n_directory + n_graph, what="tensor directory with the graph")
    return both[:n_directory], both[n_directory:]


def check_length(what: str, data: bytes, limit: int) -> None:
    """Refuse what no reader accepts.

    Raises:
        ModelError: There are more bytes than the limit.
    """
    if len(data) > limit:
        raise ModelError(f"{what} takes {len(data):,} bytes; the limit is {limit:,}")


def inflate(payload: bytes, *, limit: int, what: str) -> bytes:
    """Undo `deflate` without ever producing more than was declared.

    Raises:
        DamagedArtifact: It inflates to another size, or to more than `limit`.
    """
    reader = PartReader(payload)
    (declared,) = reader.unpack("I")
    _check_declared(what, declared, limit)

    inflater = zlib.decompressobj()
    try:
        # one byte more than is right, so that too many are noticed, and no more are ever made
        data = inflater.decompress(reader.rest("payload"), declared + 1)
    except zlib.error as error:
        raise DamagedArtifact(f"{what} cannot be inflated: {error}") from error

    if len(data) != declared or not inflater.eof or inflater.unused_data:
        raise DamagedArtifact(f"{what} does not inflate to the {declared:,} bytes declared")

    return data


def _check_declared(what: str, declared: int, limit: int) -> None:
    if declared > limit:
        raise DamagedArtifact(f"{what} inflates to {declared:,} bytes; the limit is {limit:,}")


def _read_chunks(file: IO[bytes], n_chunks: int, total: int) -> Iterator[tuple[bytes, Chunk]]:
    if n_chunks > MAX_CHUNKS:
        raise DamagedArtifact(f"{n_chunks:,} chunks; the limit is {MAX_CHUNKS}")

    seen: set[bytes] = set()
    position = HEADER.size
    for _ in range(n_chunks):
        file.seek(position)
        head = file.read(CHUNK.size)
        position += CHUNK.size

        if len(head) < CHUNK.size:
            raise DamagedArtifact(f"a chunk header needs {CHUNK.size} bytes, {len(head)} are left")

        kind, length = CHUNK.unpack(head)
        if length > total - position:
            raise DamagedArtifact(f"chunk {kind!r} needs {length:,} bytes, {total - position:,} are left")

        if _is_known(kind):
            if kind in seen:
                raise DamagedArtifact(f"chunk {kind.decode()} occurs twice")
            seen.add(kind)
            yield kind, Chunk(position, length)

        position += length

    if position != total:
        raise DamagedArtifact(f"{total - position:,} bytes are left over")

    for kind in (DATA,) if META in seen else (GRAPH, DIRECTORY, DATA):
        if kind not in seen:
            raise DamagedArtifact(f"chunk {kind.decode()} is missing")
    if META in seen and seen & {GRAPH, DIRECTORY}:
        raise DamagedArtifact("graph and tensor directory occur twice")
    if seen.issuperset({TABLES, SQUEEZED}):
        raise DamagedArtifact("shared code tables occur twice")


def _is_known(kind: bytes) -> bool:
    """Whether to open a chunk of this type; false for those that may be skipped."""
    if kind in _KNOWN:
        return True
    if not (kind.isascii() and kind.isalpha()):
        raise DamagedArtifact(f"chunk type {kind!r} is not four letters")
    if kind[:1].isupper():  # a small first letter marks what a reader may skip
        raise UnsupportedVersion(f"critical chunk {kind!r} is unknown; a newer modelpress wrote it")

    return False


def _digest(file: IO[bytes], total: int) -> bytes:
    """SHA-256 of the whole file without the 32 bytes that hold it."""
    file.seek(0)
    digest = hashlib.sha256(file.read(_DIGEST_AT))
    file.seek(HEADER.size)

    left = total - HEADER.size
    while left > 0:
        piece = file.read(min(left, _AT_ONCE))
        if not piece:
            break  # the file shrank meanwhile: the digest will not match
        digest.update(piece)
        left -= len(piece)

    return digest.digest()
