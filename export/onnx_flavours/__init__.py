"""One ONNX model per way of storing the weights in it; each flavour is a file and a line here."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import onnx

from export.atomic_file import write_atomically
from export.errors import InputError, ModelError
from export.onnx_flavours import float32
from export.quantized import QuantizedModel

FLAVOURS: Mapping[str, Callable[[QuantizedModel], onnx.ModelProto]] = MappingProxyType(
    {"float": float32.emit}
)


def emit(model: QuantizedModel, *, flavour: str) -> onnx.ModelProto:
    """The ONNX model of a flavour, checked.

    Raises:
        InputError: The flavour is unknown.
        ModelError: The graph is no valid ONNX model.
    """
    if flavour not in FLAVOURS:
        raise InputError(f"flavour {flavour!r} is unknown; choose one of: {', '.join(FLAVOURS)}")
    emitted = FLAVOURS[flavour](model)
    try:
        onnx.checker.check_model(emitted, full_check=True)
    except Exception as error:  # checker, shape inference and protobuf raise their own kinds
        raise ModelError(f"the graph is no valid ONNX model: {error}") from error
    return emitted


def write_onnx(path: Path, model: QuantizedModel, *, flavour: str) -> int:
    """Write the ONNX file of a flavour, whole or not at all; returns its size in bytes.

    Raises:
        InputError: The flavour is unknown, or the file cannot be written.
        ModelError: The graph is no valid ONNX model.
    """
    data = bytes(emit(model, flavour=flavour).SerializeToString(deterministic=True))
    write_atomically(path, data)
    return len(data)
