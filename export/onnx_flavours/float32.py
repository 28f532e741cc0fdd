"""Flavour `float`: decoded float32 weights. The reference that every other flavour is compared with."""

from typing import IO

import onnx

from export.graph import with_initializers
from export.onnx_stream import write_onnx_stream
from export.quantized import QuantizedModel, dense_array


def emit(model: QuantizedModel) -> onnx.ModelProto:
    """Weights equal the decoded artifact bit for bit; batch norm is already folded into them."""
    return with_initializers(model.graph, {name: dense_array(t) for name, t in model.tensors.items()})


def write(file: IO[bytes], model: QuantizedModel) -> int:
    """The bytes of `emit`, with one tensor in memory at a time; returns their number."""
    return write_onnx_stream(file, model)
