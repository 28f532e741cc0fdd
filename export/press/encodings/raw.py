"""Encodings 0 and 16: the array as it is, little-endian; 16 holds floats that are not finite, too."""

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.byte_parts import PartReader, PartWriter
from modelpress.export.errors import DamagedArtifact
from modelpress.export.files.blocks import blocks
from modelpress.export.tensor_spec import DTYPES, TensorSpec


def encode(array: npt.NDArray[np.generic]) -> PartWriter:
    """Bytes of an array that is not quantized."""
    return PartWriter().add("payload", little_endian(array))


def decode(reader: PartReader, spec: TensorSpec) -> npt.NDArray[np.generic]:
    """Undo `encode`."""
    return array_from_bytes(reader.take("payload", spec.n_bytes), spec)


def decode_any_bits(reader: PartReader, spec: TensorSpec) -> npt.NDArray[np.generic]:
    """Undo `encode`, whatever the floats are.

    Raises:
        DamagedArtifact: The tensor is of booleans.
    """
    stored = DTYPES[spec.onnx_type]
    if stored.kind == "b":
        raise DamagedArtifact("booleans are not stored as any bits")
    array = np.frombuffer(reader.take("payload", spec.n_bytes), stored).reshape(spec.shape)
    return array.astype(stored.newbyteorder("="))


def little_endian(array: npt.NDArray[np.generic]) -> bytes:
    """The elements in row-major order, whatever the order in memory."""
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def array_from_bytes(data: bytes | memoryview, spec: TensorSpec) -> npt.NDArray[np.generic]:
    """Undo `little_endian`.

    Raises:
        DamagedArtifact: A boolean is neither 0 nor 1, or a float is not finite.
    """
    stored = DTYPES[spec.onnx_type]
    return check_values(np.frombuffer(data, stored).reshape(spec.shape)).copy()


def check_values(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Refuse values that no writer stores; returns the array in this machine's byte order.

    Raises:
        DamagedArtifact: A boolean is neither 0 nor 1, or a float is not finite.
    """
    if array.dtype.kind == "b" and array.size and int(array.view(np.uint8).max()) > 1:
        raise DamagedArtifact("a boolean is neither 0 nor 1")
    if array.dtype.kind == "f" and not all(np.isfinite(block).all() for block in blocks(array)):
        raise DamagedArtifact("holds NaN or infinity")
    return array.astype(array.dtype.newbyteorder("="), copy=False)
