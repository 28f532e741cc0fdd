"""Protobuf's wire format, just enough to find fields in a mapped file without loading it, and to add tensors.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from modelpress.export.coding.varint import pack_varint
from modelpress.export.errors import InputError

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
# Fields of onnx.proto
MODEL_GRAPH, MODEL_FUNCTION, GRAPH_INITIALIZER, TENSOR_RAW_DATA, TENSOR_EXTERNAL_DATA = 7, 25, 5, 9, 13
_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
_MAX_VARINT_BITS = 64
_NO_MODEL = "the file is damaged or no ONNX model"
# Far above any real graph; a file of tiny fields must not keep us busy for minutes
MAX_FIELDS = 1 << 20


class Field(NamedTuple):
    """One field of a message, by its place in the data.

    Attributes:
        number: Field number of the message's schema.
        wire_type: One of the constants above.
        start: Where its tag starts.
        payload: Where its value starts, after tag and length.
        end: Where the next field starts.
        value: The number of a `VARINT` field; 0 for the others.
    """

    number: int
    wire_type: int
    start: int
    payload: int
    end: int
    value: int


def fields(data: memoryview, start: int, end: int) -> Iterator[Field]:
    """The fields of the message in ``data[start:end]``, checked against the bytes that are there.

    Raises:
        InputError: A varint or a length runs past `end`, the message uses groups, or has too many fields.

    Example:
        >>> message = memoryview(bytes([0x08, 0x96, 0x01, 0x3A, 0x02]) + b"hi")
        >>> [(f.number, f.value, bytes(message[f.payload : f.end])) for f in fields(message, 0, len(message))]
        [(1, 150, b'\\x96\\x01'), (7, 0, b'hi')]
    """
    n_fields, position = 0, start
    while position < end:
        field = _read_field(data, position, end)
        n_fields += 1
        if n_fields > MAX_FIELDS:
            raise InputError(f"byte {start:,}: a message has more than {MAX_FIELDS:,} fields")
        yield field
        position = field.end


def read_varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    """An unsigned number of up to 64 bits, and where it ends.

    Raises:
        InputError: It does not end before `end`, or is longer than 64 bits.

    Example:
        >>> read_varint(memoryview(bytes([0x96, 0x01])), 0, 2)
        (150, 2)
    """
    value = shift = 0
    start = position
    while position < end and shift < _MAX_VARINT_BITS:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value & ((1 << _MAX_VARINT_BITS) - 1), position
        shift += 7

    raise InputError(f"byte {start:,}: a number does not end; {_NO_MODEL}")


def length_prefix(number: int, length: int) -> bytes:
    """Tag and length that precede a length-delimited field.

    Example:
        >>> length_prefix(7, 300).hex(" ")
        '3a ac 02'
    """
    return pack_varint(number << 3 | LENGTH_DELIMITED) + pack_varint(length)


def tensor_header(name: str, onnx_type: int, shape: Iterable[int]) -> bytes:
    """Shape, type and name of a tensor, as onnx writes a `TensorProto` before its values.

    Example:
        >>> tensor_header("w", 1, (2, 3)).hex(" ")
        '08 02 08 03 10 01 42 01 77'
    """
    dims = b"".join(b"\x08" + pack_varint(length) for length in shape)
    text = name.encode()
    return dims + b"\x10" + pack_varint(onnx_type) + length_prefix(8, len(text)) + text


def _read_field(data: memoryview, start: int, end: int) -> Field:
    tag, payload = read_varint(data, start, end)
    number, wire_type = tag >> 3, tag & 7

    value = 0
    if wire_type == VARINT:
        value, stop = read_varint(data, payload, end)
    elif wire_type == LENGTH_DELIMITED:
        length, payload = read_varint(data, payload, end)
        stop = payload + length
    elif wire_type in _FIXED_BYTES:
        stop = payload + _FIXED_BYTES[wire_type]
    else:
        raise InputError(f"byte {start:,}: wire type {wire_type}; {_NO_MODEL}")

    if number == 0 or stop > end:
        raise InputError(
            f"byte {start:,}: field {number} takes {stop - start:,} bytes, {end - start:,} are left; {_NO_MODEL}"
        )

    return Field(number, wire_type, start, payload, stop, value)
