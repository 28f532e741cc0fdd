"""How one tensor becomes bytes: a table of encodings, each in a file of its own.

A new encoding is a new file and a new line here; nothing else changes. Ids are those of FORMAT.md,
"Encodings", and never change their meaning.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from export.byte_parts import PartReader, PartWriter
from export.encodings import byte_planes, csr_huffman, dense_huffman, packed, raw
from export.encodings.spec import TensorSpec
from export.errors import ModelError, UnsupportedVersion
from export.quantized import Tensor


@dataclass(frozen=True)
class Encoding:
    """One way to write a tensor.

    Attributes:
        id: Number in the file.
        name: Name shown to people.
        encode: The blob, or None where this encoding cannot hold the tensor.
        decode: The tensor again; raises `DamagedArtifact`.
    """

    id: int
    name: str
    encode: Callable[[Tensor], PartWriter | None]
    decode: Callable[[PartReader, TensorSpec], Tensor]


# In order of decoding speed: of two equally small encodings the earlier is taken.
ENCODINGS: tuple[Encoding, ...] = (
    Encoding(0, "raw", raw.encode, raw.decode),
    Encoding(1, "packed", packed.encode, packed.decode),
    Encoding(4, "byte planes", byte_planes.encode, byte_planes.decode),
    Encoding(2, "huffman", dense_huffman.encode, dense_huffman.decode),
    Encoding(3, "csr+huffman", csr_huffman.encode, csr_huffman.decode),
)
_BY_ID: Mapping[int, Encoding] = MappingProxyType({encoding.id: encoding for encoding in ENCODINGS})


def encode_every_way(tensor: Tensor) -> dict[str, PartWriter]:
    """The blob of every encoding that can hold this tensor, by name."""
    blobs = {encoding.name: encoding.encode(tensor) for encoding in ENCODINGS}
    return {name: blob for name, blob in blobs.items() if blob is not None}


def encode_smallest(tensor: Tensor) -> tuple[Encoding, PartWriter]:
    """Write a tensor in the encoding that takes the fewest bytes, tables and headers counted.

    Raises:
        ModelError: No encoding can hold it.
    """
    blobs = encode_every_way(tensor)
    if not blobs:
        raise ModelError("no encoding holds a tensor of this type")
    smallest = min(blobs, key=lambda name: sum(blobs[name].sizes.values()))
    return next(e for e in ENCODINGS if e.name == smallest), blobs[smallest]


def encoding_by_id(number: int) -> Encoding:
    """The encoding with this id.

    Raises:
        UnsupportedVersion: The id is not known to this reader.
    """
    if number not in _BY_ID:
        raise UnsupportedVersion(f"encoding {number} is unknown; a newer modelpress wrote it")
    return _BY_ID[number]


def decode_blob(number: int, blob: bytes, spec: TensorSpec) -> tuple[Tensor, Counter[str]]:
    """Read a tensor back, with the bytes that each part took.

    Raises:
        DamagedArtifact: The blob contradicts itself or its spec.
        UnsupportedVersion: The encoding is not known.
    """
    reader = PartReader(blob)
    tensor = encoding_by_id(number).decode(reader, spec)
    reader.finish()
    return tensor, reader.sizes
