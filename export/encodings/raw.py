"""Encoding 0: the array as it is, little-endian."""

import numpy as np
import onnx

from export.byte_parts import PartReader, PartWriter
from export.encodings.spec import DTYPES, TensorSpec
from export.errors import DamagedArtifact
from export.quantized import QuantizedTensor, Tensor


def encode(tensor: Tensor) -> PartWriter | None:
    """Bytes of an array that is not quantized."""
    if isinstance(tensor, QuantizedTensor):
        return None
    little_endian = tensor.astype(tensor.dtype.newbyteorder("<"))
    return PartWriter().add("payload", little_endian.tobytes())


def decode(reader: PartReader, spec: TensorSpec) -> Tensor:
    """Undo `encode`."""
    data = reader.take("payload", spec.n_bytes)
    if spec.onnx_type == onnx.TensorProto.BOOL and max(data, default=0) > 1:
        raise DamagedArtifact("a boolean is neither 0 nor 1")
    array = np.frombuffer(data, DTYPES[spec.onnx_type]).reshape(spec.shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DamagedArtifact("holds NaN or infinity")
    return array.astype(array.dtype.newbyteorder("="))
