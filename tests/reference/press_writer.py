"""Files put together from their parts, checksums and lengths right whatever the parts hold: to break parts alone."""

import hashlib
import struct
import zlib
from dataclasses import dataclass, field

from onnx import helper

HEADER_BYTES = 56


def tiny_graph():
    """A `ModelProto` of one node: `ReLU`, with a metadata entry."""
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    model = helper.make_model(graph)
    helper.set_model_props(model, {"k": "v"})
    return model.SerializeToString(deterministic=True)


@dataclass(frozen=True)
class Line:
    """One tensor: what the directory says of it, and its blob."""

    name: str
    element_type: int
    shape: tuple
    encoding: int
    blob: bytes


@dataclass(frozen=True)
class Parts:
    """What a file holds, before anything is compressed or counted."""

    lines: tuple
    graph: bytes = field(default_factory=tiny_graph)
    tables: bytes | None = None
    minor: int = 1

    @property
    def directory(self):
        return struct.pack("<I", len(self.lines)) + b"".join(map(directory_line, self.lines))

    @property
    def data(self):
        return b"".join(line.blob for line in self.lines)


def directory_line(line):
    name = line.name.encode()
    return (
        struct.pack("<H", len(name))
        + name
        + struct.pack(f"<BB{len(line.shape)}I", line.element_type, len(line.shape), *line.shape)
        + struct.pack("<BIQ", line.encoding, zlib.crc32(line.blob), len(line.blob))
    )


def assemble(parts, *, graph=None, directory=None, tables=None):
    """The file; parts given by name replace those of ``parts``, as they are before compression."""
    tables = parts.tables if tables is None else tables
    chunks = [
        (b"DATA", parts.data),
        (b"GRPH", deflated(parts.graph if graph is None else graph)),
        (b"TDIR", deflated(parts.directory if directory is None else directory)),
    ]
    if tables is not None:
        chunks.insert(1, (b"TABL", tables))
    body = b"".join(kind + struct.pack("<Q", len(payload)) + payload for kind, payload in chunks)
    head = b"\x89PRESS\r\n" + struct.pack("<HHIQ", 1, parts.minor, len(chunks), 0)
    return sealed(head + bytes(32) + body)


def deflated(data):
    return struct.pack("<I", len(data)) + zlib.compress(data, 1)


def sealed(file):
    """The file with its length and SHA-256 made right."""
    if len(file) < HEADER_BYTES:
        return file
    head, body = file[:16] + struct.pack("<Q", len(file)), file[HEADER_BYTES:]
    return head + hashlib.sha256(head + body).digest() + body
