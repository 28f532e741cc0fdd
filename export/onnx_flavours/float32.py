"""Flavour `float`: decoded float32 weights. The reference that every other flavour is compared with."""

import onnx

from export.graph import with_initializers
from export.quantized import QuantizedModel, dense_array


def emit(model: QuantizedModel) -> onnx.ModelProto:
    """Weights equal the decoded artifact bit for bit; batch norm is already folded into them."""
    return with_initializers(model.graph, {name: dense_array(t) for name, t in model.tensors.items()})
