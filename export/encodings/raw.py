"""Encoding 0: the array as it is, little-endian."""

import numpy as np
import numpy.typing as npt
import onnx

from export.byte_parts import PartReader, PartWriter
from export.encodings.spec import DTYPES, TensorSpec
from export.errors import DamagedArtifact
from export.quantized import QuantizedTensor, Tensor


def encode(tensor: Tensor) -> PartWriter | None:
    """Bytes of an array that is not quantized."""
    return None if isinstance(tensor, QuantizedTensor) else PartWriter().add("payload", little_endian(tensor))


def decode(reader: PartReader, spec: TensorSpec) -> Tensor:
    """Undo `encode`."""
    return array_from_bytes(reader.take("payload", spec.n_bytes), spec)


def little_endian(array: npt.NDArray[np.generic]) -> bytes:
    """The elements in row-major order, whatever the order in memory."""
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def array_from_bytes(data: bytes, spec: TensorSpec) -> npt.NDArray[np.generic]:
    """Undo `little_endian`.

    Raises:
        DamagedArtifact: A boolean is neither 0 nor 1, or a float is not finite.
    """
    if spec.onnx_type == onnx.TensorProto.BOOL and max(data, default=0) > 1:
        raise DamagedArtifact("a boolean is neither 0 nor 1")
    array = np.frombuffer(data, DTYPES[spec.onnx_type]).reshape(spec.shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DamagedArtifact("holds NaN or infinity")
    return array.astype(array.dtype.newbyteorder("="))
