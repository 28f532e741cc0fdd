"""The tensor directory of an artifact: name, shape, type, encoding, checksum and length of every tensor."""

import struct
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from modelpress.export.coding.byte_parts import PartReader
from modelpress.export.coding.varint import pack_varint, unpack_varint
from modelpress.export.errors import DamagedArtifact, ModelError
from modelpress.export.tensor_spec import DTYPES, MAX_DIMENSIONS, MAX_ELEMENTS, MAX_TENSORS, TensorSpec

# Limits of version 1; FORMAT.md states each beside its field
MAX_NAME_BYTES = 1024


@dataclass(frozen=True)
class TensorRecord:
    """One line of the directory.

    Attributes:
        encoding: Id of the encoding, see `modelpress.export.press.encodings`.
        crc32: Of the blob; None where the file has none for each tensor.
        n_bytes: Length of the blob.
    """

    name: str
    spec: TensorSpec
    encoding: int
    crc32: int | None
    n_bytes: int


def check_names(names: Iterable[str]) -> None:
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

        # unpacked to files, such names would overwrite each other on some systems
        folded = unicodedata.normalize("NFC", name).casefold()
        if folded in seen:
            raise ModelError(
                f"tensor names {seen[folded]!r} and {name!r} are the same but for case or Unicode form"
            )

        seen[folded] = name


def pack_directory(records: Sequence[TensorRecord]) -> bytes:
    """The directory of the chunk META, before compression."""
    return pack_varint(len(records)) + b"".join(map(_pack_record, records))


def pack_directory_1_1(records: Sequence[TensorRecord]) -> bytes:
    """The directory of the chunk TDIR, before compression; records have checksums."""
    return struct.pack("<I", len(records)) + b"".join(map(_pack_record_1_1, records))


def read_directory(data: bytes) -> list[TensorRecord]:
    """Undo `pack_directory`.

    Raises:
        DamagedArtifact: A field is out of range, a name not allowed, or bytes are left.
    """
    reader = PartReader(data)
    return _read_records(reader, unpack_varint(reader, "header"), _read_record)


def read_directory_1_1(data: bytes) -> list[TensorRecord]:
    """Undo `pack_directory_1_1`.

    Raises:
        DamagedArtifact: As for `read_directory`.
    """
    reader = PartReader(data)
    (n_tensors,) = reader.unpack("I")
    return _read_records(reader, n_tensors, _read_record_1_1)


def _read_records(
    reader: PartReader, n_tensors: int, read: Callable[[PartReader], TensorRecord]
) -> list[TensorRecord]:
    if n_tensors > MAX_TENSORS:
        raise DamagedArtifact(f"{n_tensors:,} tensors; the limit is {MAX_TENSORS:,}")

    records = [read(reader) for _ in range(n_tensors)]
    reader.finish()
    try:
        check_names(record.name for record in records)
    except ModelError as error:
        raise DamagedArtifact(str(error)) from error

    return records


def _pack_record(record: TensorRecord) -> bytes:
    name, spec = record.name.encode(), record.spec
    return (
        pack_varint(len(name))
        + name
        + bytes([record.encoding, spec.onnx_type, len(spec.shape)])
        + b"".join(map(pack_varint, spec.shape))
        + pack_varint(record.n_bytes)
    )


def _read_record(reader: PartReader) -> TensorRecord:
    name = _read_name(reader, unpack_varint(reader, "header"))
    encoding, onnx_type, n_dimensions = reader.unpack("BBB")
    _check_type(name, onnx_type, n_dimensions)
    shape = tuple(unpack_varint(reader, "header") for _ in range(n_dimensions))
    return TensorRecord(name, _spec(name, shape, onnx_type), encoding, None, unpack_varint(reader, "header"))


def _pack_record_1_1(record: TensorRecord) -> bytes:
    name, shape = record.name.encode(), record.spec.shape
    return (
        struct.pack("<H", len(name))
        + name
        + struct.pack(f"<BB{len(shape)}I", record.spec.onnx_type, len(shape), *shape)
        + struct.pack("<BIQ", record.encoding, record.crc32, record.n_bytes)
    )


def _read_record_1_1(reader: PartReader) -> TensorRecord:
    name = _read_name(reader, *reader.unpack("H"))
    onnx_type, n_dimensions = reader.unpack("BB")
    _check_type(name, onnx_type, n_dimensions)
    *shape, encoding, crc32, n_bytes = reader.unpack(f"{n_dimensions}IBIQ")
    return TensorRecord(name, _spec(name, tuple(shape), onnx_type), encoding, crc32, n_bytes)


def _read_name(reader: PartReader, n_bytes: int) -> str:
    try:
        return reader.take("header", n_bytes).decode()
    except UnicodeDecodeError as error:
        raise DamagedArtifact("a tensor name is not UTF-8") from error


def _check_type(name: str, onnx_type: int, n_dimensions: int) -> None:
    if onnx_type not in DTYPES or n_dimensions > MAX_DIMENSIONS:
        raise DamagedArtifact(f"{name}: type {onnx_type} with {n_dimensions} axes is not defined")


def _spec(name: str, shape: tuple[int, ...], onnx_type: int) -> TensorSpec:
    spec = TensorSpec(shape, onnx_type)
    if spec.exceeds_limits():
        raise DamagedArtifact(f"{name}: shape {spec.shape} exceeds {MAX_ELEMENTS:,} elements")
    return spec
