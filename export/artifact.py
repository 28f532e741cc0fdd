"""The `.press` file: bytes to `QuantizedModel` and back, as specified in FORMAT.md."""

import hashlib
import struct
import sys
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError

from export.atomic_file import write_atomically
from export.byte_parts import PartReader
from export.encodings import decode_blob, encode_smallest, encoding_by_id
from export.encodings.spec import DTYPES, MAX_DIMENSIONS, MAX_ELEMENTS, TensorSpec
from export.errors import (
    ArtifactError,
    ChecksumMismatch,
    DamagedArtifact,
    InputError,
    ModelError,
    NotAnArtifact,
    TruncatedArtifact,
    UnsupportedVersion,
)
from export.graph import check_self_contained
from export.quantized import QuantizedModel, QuantizedTensor, Tensor

MAGIC = b"\x89PRESS\r\n"
VERSION = (1, 0)
_HEADER = struct.Struct("<8sHHIQ32s")  # magic, major, minor, chunks, total length, SHA-256
_DIGEST_AT = _HEADER.size - 32
_CHUNK = struct.Struct("<4sQ")
_GRAPH, _DIRECTORY, _DATA = b"GRPH", b"TDIR", b"DATA"

# Limits of version 1; FORMAT.md states each beside its field
MAX_CHUNKS = 64
MAX_GRAPH_BYTES = 8 << 20
MAX_DIRECTORY_BYTES = 8 << 20
MAX_TENSORS = 1 << 16
MAX_NAME_BYTES = 1024
DEFAULT_MAX_DECODED_BYTES = 2 << 30


@dataclass(frozen=True)
class TensorRecord:
    """One line of the tensor directory.

    Attributes:
        encoding: Id of the encoding, see `export.encodings`.
        crc32: Of the blob.
        n_bytes: Length of the blob.
    """

    name: str
    spec: TensorSpec
    encoding: int
    crc32: int
    n_bytes: int


@dataclass(frozen=True)
class TensorUsage:
    """What a tensor costs in the file: its record and the bytes of each part of its blob."""

    record: TensorRecord
    tensor: Tensor
    parts: Counter[str]

    @property
    def encoding_name(self) -> str:
        """Name of the encoding."""
        return encoding_by_id(self.record.encoding).name


@dataclass(frozen=True)
class ArtifactUsage:
    """Where the bytes of a file are.

    Attributes:
        size_bytes: The whole file.
        graph_bytes: The compressed graph.
        directory_bytes: The compressed directory.
        tensors: Every tensor; ``size_bytes`` is the sum of all, plus headers.
        version: Format version, major and minor.
    """

    size_bytes: int
    graph_bytes: int
    directory_bytes: int
    tensors: list[TensorUsage]
    graph: onnx.ModelProto
    version: tuple[int, int]

    @property
    def model(self) -> QuantizedModel:
        """The decoded model."""
        return QuantizedModel(self.graph, {t.record.name: t.tensor for t in self.tensors})

    @property
    def frame_bytes(self) -> int:
        """File header, chunk headers and unknown ancillary chunks."""
        return (
            self.size_bytes
            - self.graph_bytes
            - self.directory_bytes
            - sum(t.record.n_bytes for t in self.tensors)
        )


def write_artifact(path: Path, model: QuantizedModel) -> int:
    """Pack a model into a file; returns its size in bytes.

    The bytes are decoded and compared with the model before the file appears.

    Raises:
        ModelError: The model holds something that cannot be packed.
        InputError: The file cannot be written.
    """
    data = encode_artifact(model)
    if not decode_artifact(data, max_decoded_bytes=sys.maxsize).equals(model):
        raise ModelError(f"{path}: the packed bytes do not decode to the model; nothing was written")
    write_atomically(path, data)
    return len(data)


def read_artifact(path: Path, *, max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES) -> QuantizedModel:
    """Load a file; see `decode_artifact`.

    Raises:
        InputError: The file cannot be opened.
        ArtifactError: It cannot be trusted.
    """
    return decode_artifact(read_bytes(path), max_decoded_bytes=max_decoded_bytes)


def read_bytes(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        InputError: The file cannot be opened.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def encode_artifact(model: QuantizedModel) -> bytes:
    """Bytes of a model; the same model gives the same bytes.

    Raises:
        ModelError: A tensor has a name, shape, type or value that cannot be packed.
    """
    check_names(list(model.tensors))
    check_self_contained(model.graph)
    if len(model.tensors) > MAX_TENSORS:
        raise ModelError(f"{len(model.tensors):,} tensors; the limit is {MAX_TENSORS:,}")
    records, blobs = [], []
    for name, tensor in model.tensors.items():
        record, blob = _encode_tensor(name, tensor)
        records.append(record)
        blobs.append(blob)
    chunks = [
        (_GRAPH, _deflate(model.graph.SerializeToString(deterministic=True), MAX_GRAPH_BYTES)),
        (_DIRECTORY, _deflate(_pack_directory(records), MAX_DIRECTORY_BYTES)),
        (_DATA, b"".join(blobs)),
    ]
    body = b"".join(_CHUNK.pack(kind, len(payload)) + payload for kind, payload in chunks)
    total = _HEADER.size + len(body)
    header = _HEADER.pack(MAGIC, *VERSION, len(chunks), total, bytes(32))
    return header[:_DIGEST_AT] + _digest(header + body) + body


def decode_artifact(data: bytes, *, max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES) -> QuantizedModel:
    """Undo `encode_artifact`.

    Args:
        data: A whole file.
        max_decoded_bytes: Refuse files whose tensors are larger in memory.

    Raises:
        ArtifactError: The bytes cannot be trusted.
    """
    return artifact_usage(data, max_decoded_bytes=max_decoded_bytes).model


def artifact_usage(data: bytes, *, max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES) -> ArtifactUsage:
    """Decode everything and account for every byte.

    Raises:
        ArtifactError: The bytes cannot be trusted.
    """
    version, chunks = _read_frame(data)
    graph = _read_graph(chunks[_GRAPH])
    records = _read_directory(chunks[_DIRECTORY])
    decoded = sum(record.spec.n_bytes for record in records)
    if decoded > max_decoded_bytes:
        raise DamagedArtifact(f"tensors decode to {decoded:,} bytes; the limit is {max_decoded_bytes:,}")
    stored = sum(record.n_bytes for record in records)
    if stored != len(chunks[_DATA]):
        raise DamagedArtifact(
            f"directory declares {stored:,} bytes of data, the file holds {len(chunks[_DATA]):,}"
        )
    tensors = list(_decode_tensors(records, chunks[_DATA]))
    return ArtifactUsage(len(data), len(chunks[_GRAPH]), len(chunks[_DIRECTORY]), tensors, graph, version)


def check_names(names: list[str]) -> None:
    """Refuse names that are empty, too long, unprintable, or collide by case or Unicode form.

    Raises:
        ModelError: As said.
    """
    seen: dict[str, str] = {}
    for name in names:
        # the length first: normalising hostile names takes time quadratic in it
        if not 0 < len(name.encode(errors="replace")) <= MAX_NAME_BYTES or not name.isprintable():
            raise ModelError(
                f"tensor name {name[:40]!r} is empty, unprintable or longer than {MAX_NAME_BYTES} bytes"
            )
        folded = unicodedata.normalize("NFC", name).casefold()
        if folded in seen:
            raise ModelError(
                f"tensor names {seen[folded]!r} and {name!r} are the same but for case or Unicode form"
            )
        seen[folded] = name


def _encode_tensor(name: str, tensor: Tensor) -> tuple[TensorRecord, bytes]:
    if not isinstance(tensor, QuantizedTensor):
        _check_array(name, tensor)
        onnx_type = int(onnx.helper.np_dtype_to_tensor_dtype(tensor.dtype.newbyteorder("=")))
    else:
        onnx_type = int(onnx.TensorProto.FLOAT)
    spec = TensorSpec(tuple(int(d) for d in tensor.shape), onnx_type)
    if spec.exceeds_limits():
        raise ModelError(
            f"{name}: shape {spec.shape} exceeds {MAX_DIMENSIONS} axes or {MAX_ELEMENTS:,} elements"
        )
    encoding, writer = encode_smallest(tensor)
    blob = writer.data()
    return TensorRecord(name, spec, encoding.id, zlib.crc32(blob), len(blob)), blob


def _check_array(name: str, array: npt.NDArray[np.generic]) -> None:
    if array.dtype.newbyteorder("<") not in DTYPES.values():
        raise ModelError(
            f"{name}: type {array.dtype} cannot be packed; expected a float, integer or boolean type"
        )
    if array.dtype.kind == "f" and not np.isfinite(array.astype(np.float64)).all():
        raise ModelError(f"{name}: holds NaN or infinity")


def _pack_record(record: TensorRecord) -> bytes:
    name, shape = record.name.encode(), record.spec.shape
    return (
        struct.pack("<H", len(name))
        + name
        + struct.pack(f"<BB{len(shape)}I", record.spec.onnx_type, len(shape), *shape)
        + struct.pack("<BIQ", record.encoding, record.crc32, record.n_bytes)
    )


def _read_record(reader: PartReader) -> TensorRecord:
    (name_bytes,) = reader.unpack("H")
    try:
        name = reader.take("header", name_bytes).decode()
    except UnicodeDecodeError as error:
        raise DamagedArtifact("a tensor name is not UTF-8") from error
    onnx_type, n_dimensions = reader.unpack("BB")
    if onnx_type not in DTYPES or n_dimensions > MAX_DIMENSIONS:
        raise DamagedArtifact(f"{name}: type {onnx_type} with {n_dimensions} axes is not defined")
    spec = TensorSpec(reader.unpack(f"{n_dimensions}I"), onnx_type)
    if spec.exceeds_limits():
        raise DamagedArtifact(f"{name}: shape {spec.shape} exceeds {MAX_ELEMENTS:,} elements")
    return TensorRecord(name, spec, *reader.unpack("BIQ"))


def _read_directory(payload: bytes) -> list[TensorRecord]:
    reader = PartReader(_inflate(payload, limit=MAX_DIRECTORY_BYTES, what="tensor directory"))
    (n_tensors,) = reader.unpack("I")
    if n_tensors > MAX_TENSORS:
        raise DamagedArtifact(f"{n_tensors:,} tensors; the limit is {MAX_TENSORS:,}")
    records = [_read_record(reader) for _ in range(n_tensors)]
    reader.finish()
    try:
        check_names([record.name for record in records])
    except ModelError as error:
        raise DamagedArtifact(str(error)) from error
    return records


def _read_graph(payload: bytes) -> onnx.ModelProto:
    serialised = _inflate(payload, limit=MAX_GRAPH_BYTES, what="graph")
    graph = onnx.ModelProto()
    try:
        graph.ParseFromString(serialised)
        check_self_contained(graph)
    except (DecodeError, ModelError) as error:
        raise DamagedArtifact(f"the graph cannot be used: {error}") from error
    return graph


def _decode_tensors(records: list[TensorRecord], data: bytes) -> Iterator[TensorUsage]:
    start = 0
    for record in records:
        blob = data[start : start + record.n_bytes]
        start += record.n_bytes
        if zlib.crc32(blob) != record.crc32:
            raise ChecksumMismatch(f"{record.name}: its bytes changed since the file was written")
        try:
            tensor, parts = decode_blob(record.encoding, blob, record.spec)
        except ArtifactError as error:
            raise type(error)(f"{record.name}: {error}") from error
        yield TensorUsage(record, tensor, parts)


def _read_frame(data: bytes) -> tuple[tuple[int, int], dict[bytes, bytes]]:
    """Check everything outside the chunks; returns the version and the known chunks by type."""
    if data[: len(MAGIC)] != MAGIC:
        raise NotAnArtifact(f"not a .press file: it starts with {data[:8].hex(' ') or 'nothing'}")
    if len(data) < _HEADER.size:
        raise TruncatedArtifact(f"file ends inside its header: {len(data)} of {_HEADER.size} bytes")
    _, major, minor, n_chunks, total, digest = _HEADER.unpack_from(data)
    if major != VERSION[0]:
        raise UnsupportedVersion(f"format version {major}.{minor}; this reader knows {VERSION[0]}.x")
    if len(data) != total:
        kind = "shorter" if len(data) < total else "longer"
        raise TruncatedArtifact(
            f"file is {kind} than it declares: {len(data):,} of {total:,} bytes; copy it again"
        )
    if _digest(data) != digest:
        raise ChecksumMismatch("SHA-256 does not match: bytes changed since the file was written")
    return (major, minor), _read_chunks(data, n_chunks)


def _read_chunks(data: bytes, n_chunks: int) -> dict[bytes, bytes]:
    if n_chunks > MAX_CHUNKS:
        raise DamagedArtifact(f"{n_chunks:,} chunks; the limit is {MAX_CHUNKS}")
    reader = PartReader(data, position=_HEADER.size)
    chunks: dict[bytes, bytes] = {}
    for _ in range(n_chunks):
        kind, length = _CHUNK.unpack(reader.take("header", _CHUNK.size))
        payload = reader.take("payload", length)
        if kind not in (_GRAPH, _DIRECTORY, _DATA):
            if not (kind.isascii() and kind.isalpha()):
                raise DamagedArtifact(f"chunk type {kind!r} is not four letters")
            if kind[:1].isupper():  # a small first letter marks what a reader may skip
                raise UnsupportedVersion(f"critical chunk {kind!r} is unknown; a newer modelpress wrote it")
            continue
        if kind in chunks:
            raise DamagedArtifact(f"chunk {kind.decode()} occurs twice")
        chunks[kind] = payload
    reader.finish()
    for kind in (_GRAPH, _DIRECTORY, _DATA):
        if kind not in chunks:
            raise DamagedArtifact(f"chunk {kind.decode()} is missing")
    return chunks


def _digest(data: bytes) -> bytes:
    """SHA-256 of the whole file without the 32 bytes that hold it."""
    digest = hashlib.sha256(data[:_DIGEST_AT])
    digest.update(memoryview(data)[_HEADER.size :])
    return digest.digest()


def _pack_directory(records: list[TensorRecord]) -> bytes:
    return struct.pack("<I", len(records)) + b"".join(map(_pack_record, records))


def _deflate(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise ModelError(f"graph or tensor directory takes {len(data):,} bytes; the limit is {limit:,}")
    return struct.pack("<I", len(data)) + zlib.compress(data, 9)


def _inflate(payload: bytes, *, limit: int, what: str) -> bytes:
    """Undo `_deflate` without ever producing more than was declared."""
    reader = PartReader(payload)
    (declared,) = reader.unpack("I")
    if declared > limit:
        raise DamagedArtifact(f"{what} inflates to {declared:,} bytes; the limit is {limit:,}")
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(reader.rest("payload"), declared + 1)
    except zlib.error as error:
        raise DamagedArtifact(f"{what} cannot be inflated: {error}") from error
    if len(data) != declared or not inflater.eof or inflater.unused_data:
        raise DamagedArtifact(f"{what} does not inflate to the {declared:,} bytes declared")
    return data
