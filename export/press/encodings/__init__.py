"""How one tensor becomes bytes: a table of encodings, each in a file of its own.

A new encoding is a new file and a new line here. Ids are those of FORMAT.md, "Encodings", and never change
their meaning.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.byte_parts import PartReader
from modelpress.export.errors import DamagedArtifact, UnsupportedVersion
from modelpress.export.press.encodings import (
    byte_planes,
    coded_planes,
    compiled,
    half,
    huffman_blob,
    lzma_elements,
    mixed_contexts,
    packed,
    raw,
    version_1_0,
)
from modelpress.export.press.encodings.bitmap import BitmapCoder
from modelpress.export.press.encodings.dense import DenseCoder
from modelpress.export.press.encodings.file_state import FileState
from modelpress.export.press.encodings.gaps import GapCoder
from modelpress.export.press.encodings.grid import read_grid, read_grid_1_0
from modelpress.export.press.encodings.kernels.kernel_mask import KernelMaskCoder
from modelpress.export.press.encodings.kernels.sign_rows import SignRowCoder
from modelpress.export.press.encodings.slab_coder import SlabCoder
from modelpress.export.press.encodings.split import blob as split
from modelpress.export.press.frame import LEAST_MINOR
from modelpress.export.quantized import Tensor, dense_array
from modelpress.export.tensor_spec import TensorSpec, of_carrier

_T = TypeVar("_T")


@dataclass(frozen=True)
class Encoding:
    """One way to write a tensor.

    Attributes:
        id: Number in the file.
        name: Name shown to people.
        decode: The tensor again; raises `DamagedArtifact`.
        front: Read what comes before the levels: short, whatever the tensor; None where nothing does.
        in_order: Whether all earlier tensors of this encoding must have been decoded before.
        minor: The lowest minor version of the format that is written and has it.
    """

    id: int
    name: str
    decode: Callable[[PartReader, TensorSpec, FileState], Tensor]
    front: Callable[[PartReader, TensorSpec, FileState], object] | None = None
    in_order: bool = False
    minor: int = LEAST_MINOR


def _alone(decode: Callable[[PartReader, TensorSpec], _T]) -> Callable[..., _T]:
    """A decoder that needs nothing of the file."""
    return lambda reader, spec, _state: decode(reader, spec)


def _huffman(name: str, kind: type[SlabCoder]) -> Encoding:
    return Encoding(
        kind.number,
        name,
        lambda reader, spec, state: huffman_blob.read(reader, spec, kind, state.shared),
        front=lambda reader, spec, state: huffman_blob.read_front(reader, spec, kind, state.shared),
    )


def _stored_elsewhere(_reader: PartReader, spec: TensorSpec, _state: FileState) -> Tensor:
    raise DamagedArtifact(f"a tensor of shape {spec.shape} is stored as the same as one that is not given")


# Ids that writers name.
RAW, BYTE_PLANES, PACKED, MIXED, FLOAT16, BFLOAT16, CODED_PLANES = 0, 4, 5, 10, 11, 12, 13
SPLIT, SPLIT_MIXED, ANY_BITS, LZMA, SAME, LINKED, SPLIT_LINKED = 14, 15, 16, 18, 19, 20, 21

# The coders of the Huffman encodings, the fastest to decode first.
HUFFMAN_IDS: Mapping[type[SlabCoder], int] = MappingProxyType(
    {kind: kind.number for kind in (DenseCoder, BitmapCoder, GapCoder, KernelMaskCoder, SignRowCoder)}
)

ENCODINGS: Mapping[int, Encoding] = MappingProxyType(
    {
        encoding.id: encoding
        for encoding in (
            Encoding(RAW, "raw", _alone(raw.decode)),
            Encoding(1, "packed 1.0", _alone(version_1_0.decode_packed), _alone(read_grid_1_0)),
            Encoding(2, "huffman 1.0", _alone(version_1_0.decode_huffman), _alone(read_grid_1_0)),
            Encoding(3, "csr+huffman 1.0", _alone(version_1_0.decode_csr_huffman), _alone(read_grid_1_0)),
            Encoding(BYTE_PLANES, "byte planes", _alone(byte_planes.decode)),
            Encoding(PACKED, "packed", _alone(packed.decode), _alone(read_grid)),
            _huffman("huffman", DenseCoder),
            _huffman("csr+huffman", GapCoder),
            _huffman("bitmap+huffman", BitmapCoder),
            _huffman("kernel masks+huffman", KernelMaskCoder),
            Encoding(MIXED, "mixed contexts", mixed_contexts.decode, _alone(read_grid), in_order=True),
            Encoding(FLOAT16, "float16", _alone(half.decode_float16)),
            Encoding(BFLOAT16, "bfloat16", _alone(half.decode_bfloat16)),
            Encoding(CODED_PLANES, "coded planes", _alone(coded_planes.decode)),
            Encoding(SPLIT, "split values", split.decode),
            Encoding(SPLIT_MIXED, "split values, mixed contexts", split.decode_mixed, in_order=True),
            _huffman("sign rows+huffman", SignRowCoder),
            Encoding(ANY_BITS, "any bits", _alone(raw.decode_any_bits)),
            Encoding(LZMA, "lzma", _alone(lzma_elements.decode)),
            Encoding(SAME, "same as another", _stored_elsewhere),
            Encoding(
                LINKED,
                "linked contexts",
                mixed_contexts.decode_linked,
                _alone(read_grid),
                in_order=True,
                minor=3,
            ),
            Encoding(
                SPLIT_LINKED, "split values, linked contexts", split.decode_linked, in_order=True, minor=3
            ),
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
    encoding = encoding_by_id(number)
    if state.functions is not None and number not in compiled.COMPRESSED:
        with _more_said(encoding, blob, spec, state):
            tensor, sizes = compiled.decode(state.functions, number, blob, spec, state)
    else:
        reader = PartReader(blob)
        tensor, sizes = encoding.decode(reader, spec, state), reader.sizes
        reader.finish()

    return _in_type(tensor, spec) if isinstance(tensor, np.ndarray) else tensor, sizes


def decode_dense(number: int, blob: bytes, spec: TensorSpec, state: FileState) -> npt.NDArray[np.generic]:
    """Read the values of a tensor, in one pass where the codes are compiled.

    Raises:
        DamagedArtifact: As for `decode_blob`.
        UnsupportedVersion: As for `decode_blob`.
    """
    encoding = encoding_by_id(number)
    if state.functions is None or number in compiled.COMPRESSED:
        return dense_array(decode_blob(number, blob, spec, state)[0])
    with _more_said(encoding, blob, spec, state):
        return _in_type(compiled.decode_dense(state.functions, number, blob, spec, state), spec)


def _in_type(numbers: npt.NDArray[np.generic], spec: TensorSpec) -> npt.NDArray[np.generic]:
    """Elements of the tensor's own type, from the numbers that are stored for them."""
    try:
        return of_carrier(numbers, spec.onnx_type)
    except ValueError as error:
        raise DamagedArtifact(str(error)) from error


@contextmanager
def _more_said(encoding: Encoding, blob: bytes, spec: TensorSpec, state: FileState) -> Iterator[None]:
    """Where it is the front of a blob that is damaged, the plain reader of the front says what it found."""
    try:
        yield
    except DamagedArtifact:
        if encoding.front is not None:
            encoding.front(PartReader(blob), spec, state)
        raise
