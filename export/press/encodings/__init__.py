"""How one tensor becomes bytes: a table of encodings, each in a file of its own.

A new encoding is a new file and a new line here. Ids are those of FORMAT.md, "Encodings", and never change
their meaning.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from modelpress.export.coding.byte_parts import PartReader
from modelpress.export.errors import UnsupportedVersion
from modelpress.export.press.encodings import (
    byte_planes,
    coded_planes,
    half,
    huffman_blob,
    mixed_contexts,
    packed,
    raw,
    version_1_0,
)
from modelpress.export.press.encodings.bitmap import BitmapCoder
from modelpress.export.press.encodings.dense import DenseCoder
from modelpress.export.press.encodings.file_state import FileState
from modelpress.export.press.encodings.gaps import GapCoder
from modelpress.export.press.encodings.kernel_mask import KernelMaskCoder
from modelpress.export.press.encodings.slab_coder import SlabCoder
from modelpress.export.quantized import Tensor
from modelpress.export.tensor_spec import TensorSpec


@dataclass(frozen=True)
class Encoding:
    """One way to write a tensor.

    Attributes:
        id: Number in the file.
        name: Name shown to people.
        decode: The tensor again; raises `DamagedArtifact`.
        in_order: Whether all earlier tensors of this encoding must have been decoded before.
    """

    id: int
    name: str
    decode: Callable[[PartReader, TensorSpec, FileState], Tensor]
    in_order: bool = False


def _alone(decode: Callable[[PartReader, TensorSpec], Tensor]) -> Callable[..., Tensor]:
    """A decoder that needs nothing of the file."""
    return lambda reader, spec, _state: decode(reader, spec)


def _huffman(kind: type[SlabCoder]) -> Callable[..., Tensor]:
    return lambda reader, spec, state: huffman_blob.read(reader, spec, kind, state.shared)


# Ids that writers name.
RAW, BYTE_PLANES, PACKED, MIXED, FLOAT16, BFLOAT16, CODED_PLANES = 0, 4, 5, 10, 11, 12, 13

# The coders of the Huffman encodings, the fastest to decode first.
HUFFMAN_IDS: Mapping[type[SlabCoder], int] = MappingProxyType(
    {DenseCoder: 6, BitmapCoder: 8, GapCoder: 7, KernelMaskCoder: 9}
)

ENCODINGS: Mapping[int, Encoding] = MappingProxyType(
    {
        encoding.id: encoding
        for encoding in (
            Encoding(RAW, "raw", _alone(raw.decode)),
            Encoding(1, "packed 1.0", _alone(version_1_0.decode_packed)),
            Encoding(2, "huffman 1.0", _alone(version_1_0.decode_huffman)),
            Encoding(3, "csr+huffman 1.0", _alone(version_1_0.decode_csr_huffman)),
            Encoding(BYTE_PLANES, "byte planes", _alone(byte_planes.decode)),
            Encoding(PACKED, "packed", _alone(packed.decode)),
            Encoding(HUFFMAN_IDS[DenseCoder], "huffman", _huffman(DenseCoder)),
            Encoding(HUFFMAN_IDS[GapCoder], "csr+huffman", _huffman(GapCoder)),
            Encoding(HUFFMAN_IDS[BitmapCoder], "bitmap+huffman", _huffman(BitmapCoder)),
            Encoding(HUFFMAN_IDS[KernelMaskCoder], "kernel masks+huffman", _huffman(KernelMaskCoder)),
            Encoding(MIXED, "mixed contexts", mixed_contexts.decode, in_order=True),
            Encoding(FLOAT16, "float16", _alone(half.decode_float16)),
            Encoding(BFLOAT16, "bfloat16", _alone(half.decode_bfloat16)),
            Encoding(CODED_PLANES, "coded planes", _alone(coded_planes.decode)),
        )
    }
)


def encoding_by_id(number: int) -> Encoding:
    """The encoding with this id.

    Raises:
        UnsupportedVersion: The id is not known to this reader.
    """
    if number not in ENCODINGS:
        raise UnsupportedVersion(f"encoding {number} is unknown; a newer modelpress wrote it")
    return ENCODINGS[number]


def decode_blob(number: int, blob: bytes, spec: TensorSpec, state: FileState) -> tuple[Tensor, Counter[str]]:
    """Read a tensor back, with the bytes that each part took.

    Raises:
        DamagedArtifact: The blob contradicts itself or its spec.
        UnsupportedVersion: The encoding is not known.
    """
    reader = PartReader(blob)
    tensor = encoding_by_id(number).decode(reader, spec, state)
    reader.finish()
    return tensor, reader.sizes
