"""Bytes with a ledger: every byte of a blob belongs to one part, so sizes can be told apart.

The parts are ``header`` (fixed fields), ``scales`` (scale, offset, channel factors), ``tables`` (code tables)
and ``payload`` (what grows with the number of weights).
"""

import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from modelpress.export.errors import DamagedArtifact

Part = Literal["header", "scales", "tables", "payload"]
PARTS: tuple[Part, ...] = ("header", "scales", "tables", "payload")


@dataclass
class PartWriter:
    """Collects bytes, part by part.

    Example:
        >>> writer = PartWriter().add("header", b"ab").add("payload", b"c")
        >>> writer.data(), dict(writer.sizes)
        (b'abc', {'header': 2, 'payload': 1})
    """

    chunks: list[bytes] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)

    def add(self, part: Part, data: bytes) -> "PartWriter":
        """Append bytes of one part."""
        self.chunks.append(data)
        self.sizes[part] += len(data)
        return self

    @property
    def n_bytes(self) -> int:
        """Length of everything added."""
        return sum(self.sizes.values())

    def data(self) -> bytes:
        """Everything added, in order."""
        return b"".join(self.chunks)


@dataclass
class PartReader:
    """Reads bytes from the front and keeps the same ledger.

    Example:
        >>> reader = PartReader(b"abc")
        >>> reader.take("header", 2), reader.rest("payload"), dict(reader.sizes)
        (b'ab', b'c', {'header': 2, 'payload': 1})
    """

    buffer: bytes
    position: int = 0
    sizes: Counter[str] = field(default_factory=Counter)

    def take(self, part: Part, n_bytes: int) -> bytes:
        """The next `n_bytes` bytes.

        Raises:
            DamagedArtifact: Fewer are left.
        """
        left = len(self.buffer) - self.position  # slicing would silently give fewer
        if n_bytes > left:
            raise DamagedArtifact(
                f"{part} needs {n_bytes:,} bytes at offset {self.position:,}, {left:,} are left"
            )

        start, self.position = self.position, self.position + n_bytes
        self.sizes[part] += n_bytes
        return self.buffer[start : self.position]

    def rest(self, part: Part) -> bytes:
        """All bytes that are left."""
        return self.take(part, len(self.buffer) - self.position)

    def unpack(self, layout: str) -> tuple[int, ...]:
        """Fixed little-endian header fields in `struct` notation."""
        return struct.unpack("<" + layout, self.take("header", struct.calcsize("<" + layout)))

    def finish(self) -> None:
        """Refuse bytes that nothing has read.

        Raises:
            DamagedArtifact: Bytes are left.
        """
        if self.position != len(self.buffer):
            raise DamagedArtifact(f"{len(self.buffer) - self.position:,} bytes are left over")
