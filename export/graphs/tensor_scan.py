"""Where tensors lie inside a mapped ONNX file: their names, shapes and types; no values are loaded.

A message is parsed by onnx without its bulky fields, whose places are returned instead. Field numbers are
those of onnx.proto.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto

from modelpress.export.errors import InputError, ModelError
from modelpress.export.graphs.external_data import MAX_ENTRIES
from modelpress.export.graphs.operators import is_standard
from modelpress.export.graphs.protobuf_wire import LENGTH_DELIMITED, Field, fields
from modelpress.export.tensor_spec import DTYPES, MAX_DIMENSIONS, MAX_ELEMENTS, TensorSpec

# A graph without weights beyond this is no graph that a runtime would finish loading
MAX_SHELL_BYTES = 64 << 20
_RAW_DATA = 9
_TYPED_DATA = frozenset({4, 5, 6, 7, 10, 11})  # float, int32, string, int64, double, uint64
_NODE_ATTRIBUTE, _ATTRIBUTE_TENSOR = 5, 5

AnyMessage = TypeVar("AnyMessage", bound=Message)


@dataclass(frozen=True)
class StoredTensor:
    """A TensorProto by its place in the file.

    Attributes:
        spec: Shape and type; ``spec.onnx_type`` may be one that cannot be packed, see `check_type`.
        message: Start and end of the whole TensorProto.
        raw: Start and end of ``raw_data``; None where the values are in typed fields or another file.
        external: The entries of ``external_data``, if the values lie in another file.
    """

    name: str
    spec: TensorSpec
    message: tuple[int, int]
    raw: tuple[int, int] | None
    external: dict[str, str] | None


def parse_shell(
    data: memoryview, start: int, end: int, kind: type[AnyMessage], *, is_bulky: Callable[[Field], bool]
) -> tuple[AnyMessage, list[Field]]:
    """Parse ``data[start:end]`` without its bulky fields, and say where those are.

    Raises:
        InputError: The message is damaged, or too long without them.
    """
    bulky: list[Field] = []
    small: list[bytes] = []

    n_bytes = 0
    for field in fields(data, start, end):
        if is_bulky(field):
            bulky.append(field)
            continue
        n_bytes += field.end - field.start
        if n_bytes > MAX_SHELL_BYTES:
            raise InputError(f"{kind.__name__} takes more than {MAX_SHELL_BYTES:,} bytes without its weights")
        small.append(bytes(data[field.start : field.end]))

    message = kind()
    try:
        message.ParseFromString(b"".join(small))
    except DecodeError as error:
        raise InputError(f"byte {start:,}: no {kind.__name__}: {error}") from error

    return message, bulky


def scan_tensor(data: memoryview, start: int, end: int) -> StoredTensor:
    """Find the parts of the TensorProto in ``data[start:end]``.

    Raises:
        InputError: It is damaged, or its raw data do not have the length that shape and type ask for.
    """
    header, bulky = parse_shell(
        data, start, end, TensorProto, is_bulky=lambda field: field.number in {_RAW_DATA, *_TYPED_DATA}
    )
    spec = TensorSpec(tuple(header.dims), header.data_type)
    name = text(header.name)
    label = name or f"tensor at byte {start:,}"

    if min(spec.shape, default=0) < 0 or spec.exceeds_limits():
        raise InputError(
            f"{label}: shape {spec.shape[:12]}; expected up to {MAX_DIMENSIONS} axes, none negative, "
            f"and {MAX_ELEMENTS:,} elements"
        )
    if header.HasField("segment") or len(header.external_data) > MAX_ENTRIES:
        raise InputError(f"{label}: tensors in segments or in many places are not supported")

    external = {text(entry.key): text(entry.value) for entry in header.external_data}
    if header.data_location == TensorProto.EXTERNAL:
        return StoredTensor(name, spec, (start, end), None, external)

    raw = _raw_range(label, bulky)
    if raw is not None and spec.onnx_type in DTYPES and raw[1] - raw[0] != spec.n_raw_bytes:
        raise InputError(
            f"{label}: {raw[1] - raw[0]:,} bytes of data; shape {spec.shape} asks for {spec.n_raw_bytes:,}"
        )

    return StoredTensor(name, spec, (start, end), raw, None)


def scan_constant(data: memoryview, node: Field) -> StoredTensor | None:
    """The tensor of a `Constant` node, under the name of the node's output; None for all other nodes.

    Raises:
        InputError: The node is damaged.
    """
    shell, attributes = parse_shell(
        data, node.payload, node.end, onnx.NodeProto, is_bulky=lambda field: field.number == _NODE_ATTRIBUTE
    )
    if shell.op_type != "Constant" or not is_standard(shell):
        return None
    if len(shell.output) != 1 or len(attributes) != 1 or attributes[0].wire_type != LENGTH_DELIMITED:
        return None

    attribute, tensors = parse_shell(
        data,
        attributes[0].payload,
        attributes[0].end,
        onnx.AttributeProto,
        is_bulky=lambda field: field.number == _ATTRIBUTE_TENSOR,
    )
    if attribute.name != "value" or len(tensors) != 1 or tensors[0].wire_type != LENGTH_DELIMITED:
        return None

    found = scan_tensor(data, tensors[0].payload, tensors[0].end)
    return StoredTensor(text(shell.output[0]), found.spec, found.message, found.raw, found.external)


STAY_IN_GRAPH = frozenset((TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128))


def check_type(tensor: StoredTensor) -> None:
    """Refuse element types that cannot be packed.

    Raises:
        ModelError: As said.
    """
    if tensor.spec.onnx_type not in DTYPES:
        known = tensor.spec.onnx_type in TensorProto.DataType.values()
        kind = TensorProto.DataType.Name(tensor.spec.onnx_type) if known else str(tensor.spec.onnx_type)
        raise ModelError(
            f"{tensor.name}: elements of type {kind} cannot be packed; save the model with a released version of onnx"
        )


def text(value: object) -> str:
    """A string field, which protobuf hands over as bytes if it is no UTF-8.

    Raises:
        InputError: It is not.
    """
    if not isinstance(value, str):
        raise InputError(f"{value!r} is no UTF-8 text; the file is damaged")
    return value


def _raw_range(label: str, bulky: list[Field]) -> tuple[int, int] | None:
    """Where ``raw_data`` is.

    Raises:
        InputError: It occurs twice, or beside typed data.
    """
    raw = [field for field in bulky if field.number == _RAW_DATA and field.wire_type == LENGTH_DELIMITED]
    if raw and len(bulky) > 1 and any(field.end > field.payload for field in bulky if field is not raw[0]):
        raise InputError(f"{label}: its data occur twice; load and save the model with onnx once")
    return (raw[0].payload, raw[0].end) if raw else None
