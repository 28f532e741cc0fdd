"""The chunks of a small file, changed while its checksums stay right."""

import hashlib
import io
import struct

from modelpress.export.press import frame as artifact_frame
from modelpress.export.press.writing import encode_artifact
from tests.helpers.models import small_model
from tests.helpers.paths import GOLDEN

SMALL = encode_artifact(small_model())
SMALL_1_1 = (
    GOLDEN / "v1.1-small.press"
).read_bytes()  # the same model, graph and directory in chunks of their own
HEADER = 56


def resealed(body: bytes, *, n_chunks: int = 2, version: tuple[int, int] = (1, 1)) -> bytes:
    """A file with these chunks whose length and checksum are right."""
    header = struct.pack("<8sHHIQ", artifact_frame.MAGIC, *version, n_chunks, HEADER + len(body))
    return header + hashlib.sha256(header + body).digest() + body


def deflated(data: bytes) -> bytes:
    return artifact_frame.deflate(data)


def chunks_of(data: bytes) -> dict[bytes, bytes]:
    file = io.BytesIO(data)
    frame = artifact_frame.read_frame(file)
    return {kind: artifact_frame.read_chunk(file, chunk) for kind, chunk in frame.chunks.items()}


def with_chunks(**changes: bytes) -> bytes:
    """As version 1.1 frames it."""
    chunks = {**chunks_of(SMALL_1_1), **{k.encode(): v for k, v in changes.items()}}
    return resealed(
        b"".join(struct.pack("<4sQ", k, len(v)) + v for k, v in chunks.items()), n_chunks=len(chunks)
    )
