"""Shape and type of a tensor: what is known of it before it is made."""

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx

# ONNX TensorProto.DataType -> little-endian NumPy type. Other types are refused when packing.
DTYPES: dict[int, np.dtype[np.generic]] = {
    onnx.TensorProto.FLOAT: np.dtype("<f4"),
    onnx.TensorProto.UINT8: np.dtype("u1"),
    onnx.TensorProto.INT8: np.dtype("i1"),
    onnx.TensorProto.UINT16: np.dtype("<u2"),
    onnx.TensorProto.INT16: np.dtype("<i2"),
    onnx.TensorProto.INT32: np.dtype("<i4"),
    onnx.TensorProto.INT64: np.dtype("<i8"),
    onnx.TensorProto.BOOL: np.dtype("?"),
    onnx.TensorProto.FLOAT16: np.dtype("<f2"),
    onnx.TensorProto.DOUBLE: np.dtype("<f8"),
    onnx.TensorProto.UINT32: np.dtype("<u4"),
    onnx.TensorProto.UINT64: np.dtype("<u8"),
}

ONNX_TYPES = {dtype: onnx_type for onnx_type, dtype in DTYPES.items()}  # the other way round

MAX_TENSORS = 1 << 16  # of one model
MAX_DIMENSIONS = 8
MAX_ELEMENTS = (1 << 32) - 1


@dataclass(frozen=True)
class TensorSpec:
    """Shape and type of a decoded tensor.

    Attributes:
        shape: Dimensions; the first axis is the output channel.
        onnx_type: ONNX TensorProto.DataType, a key of `DTYPES`.
    """

    shape: tuple[int, ...]
    onnx_type: int

    def exceeds_limits(self) -> bool:
        """Whether there are too many axes or elements; empty axes do not hide long ones."""
        return (
            len(self.shape) > MAX_DIMENSIONS or prod(max(length, 1) for length in self.shape) > MAX_ELEMENTS
        )

    @property
    def size(self) -> int:
        """Number of elements, in Python's unbounded integers."""
        return prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """Bytes of the decoded array."""
        return self.size * DTYPES[self.onnx_type].itemsize
