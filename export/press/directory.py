"""The tensor directory of an artifact: name, shape, type, encoding, checksum and length of every tensor."""

import struct
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelpress.export.coding.byte_parts import PartReader
from modelpress.export.errors import DamagedArtifact, ModelError
from modelpress.export.tensor_spec import DTYPES, MAX_DIMENSIONS, MAX_ELEMENTS, MAX_TENSORS, TensorSpec

# Limits of version 1; FORMAT.md states each beside its field
MAX_NAME_BYTES = 1024


@dataclass(frozen=True)
class TensorRecord:
    """One line of the directory.

    Attributes:
        encoding: Id of the encoding, see `modelpress.export.press.encodings`.
        crc32: Of the blob.
        n_bytes: Length of the blob.
    """

    name: str
    spec: TensorSpec
    encoding: int
    crc32: int
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
    """The directory as FORMAT.md lays it out, before compression."""
    return struct.pack("<I", len(records)) + b"".join(map(_pack_record, records))


def read_directory(data: bytes) -> list[TensorRecord]:
    """Undo `pack_directory`.

    Raises:
        DamagedArtifact: A field is out of range, a name not allowed, or bytes are left.
    """
    reader = PartReader(data)
    (n_tensors,) = reader.unpack("I")
    if n_tensors > MAX_TENSORS:
        raise DamagedArtifact(f"{n_tensors:,} tensors; the limit is {MAX_TENSORS:,}")

    records = [_read_record(reader) for _ in range(n_tensors)]
    reader.finish()
    try:
        check_names(record.name for record in records)
    except ModelError as error:
        raise DamagedArtifact(str(error)) from error

    return records


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

    *shape, encoding, crc32, n_bytes = reader.unpack(f"{n_dimensions}IBIQ")
    spec = TensorSpec(tuple(shape), onnx_type)
    if spec.exceeds_limits():
        raise DamagedArtifact(f"{name}: shape {spec.shape} exceeds {MAX_ELEMENTS:,} elements")

    return TensorRecord(name, spec, encoding, crc32, n_bytes)
