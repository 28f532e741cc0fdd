"""Files put together from their parts, checksums and lengths right whatever the parts hold: to break parts alone."""

import hashlib
import lzma
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
    squeezes_tables: bool = False  # compresses them, as version 1.4 may
    is_joint: bool = False  # graph and directory in one chunk, as version 1.2 has them

    @property
    def directory(self):
        if self.is_joint:
            return varint(len(self.lines)) + b"".join(map(directory_line, self.lines))
        return struct.pack("<I", len(self.lines)) + b"".join(map(directory_line_1_1, self.lines))

    @property
    def data(self):
        return b"".join(line.blob for line in self.lines)


def directory_line(line):
    name = line.name.encode()
    numbers = bytes([line.encoding, line.element_type, len(line.shape)])
    return varint(len(name)) + name + numbers + b"".join(map(varint, line.shape)) + varint(len(line.blob))


def varint(value, *, padding=0):
    """LEB128, longer than it need be where there is padding."""
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    data.append(value)
    for _ in range(padding):
        data[-1] |= 128
        data.append(0)
    return bytes(data)


def directory_line_1_1(line):
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
    graph, directory = (
        parts.graph if graph is None else graph,
        parts.directory if directory is None else directory,
    )
    chunks = [(b"DATA", parts.data), (b"GRPH", deflated(graph)), (b"TDIR", deflated(directory))]
    if parts.is_joint:
        chunks[1:] = [(b"META", meta(directory, graph))]
    if tables is not None:
        squeezed_too = struct.pack("<I", len(tables)) + squeezed(tables)
        chunks.insert(1, (b"TABZ", squeezed_too) if parts.squeezes_tables else (b"TABL", tables))
    body = b"".join(kind + struct.pack("<Q", len(payload)) + payload for kind, payload in chunks)
    head = b"\x89PRESS\r\n" + struct.pack("<HHIQ", 1, parts.minor, len(chunks), 0)
    return sealed(head + bytes(32) + body)


def deflated(data):
    return struct.pack("<I", len(data)) + zlib.compress(data, 1)


def meta(directory, graph):
    return struct.pack("<II", len(directory), len(graph)) + squeezed(directory + graph)


def squeezed(data, properties=0):
    """An LZMA stream."""
    kind = {"lc": properties % 9, "lp": properties // 9 % 5, "pb": properties // 45}
    return lzma.compress(data, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "preset": 6, **kind}])


def sealed(file):
    """The file with its length and SHA-256 made right."""
    if len(file) < HEADER_BYTES:
        return file
    head, body = file[:16] + struct.pack("<Q", len(file)), file[HEADER_BYTES:]
    return head + hashlib.sha256(head + body).digest() + body
