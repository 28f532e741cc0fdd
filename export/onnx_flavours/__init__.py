"""One ONNX model per way of storing the weights in it; each flavour is a file and a line here."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import onnx

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
