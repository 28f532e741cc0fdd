"""Encodings 0 and 16: the array as it is, little-endian; 16 holds floats that are not finite, too."""

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.byte_parts import PartReader, PartWriter
from modelpress.export.errors import DamagedArtifact
from modelpress.export.files.blocks import is_finite
from modelpress.export.tensor_spec import CARRIERS, TensorSpec


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
    if CARRIERS[spec.onnx_type].kind == "b":
        raise DamagedArtifact("booleans are not stored as any bits")
    return array_of_any_bits(reader.take("payload", spec.n_bytes), spec)


def array_of_any_bits(data: bytes, spec: TensorSpec) -> npt.NDArray[np.generic]:
    """Undo `little_endian`, whatever the floats are.

    Raises:
        DamagedArtifact: A boolean is neither 0 nor 1.
    """
    stored = CARRIERS[spec.onnx_type]
    array = np.frombuffer(data, stored).reshape(spec.shape)
    if stored.kind == "b":
        check_values(array)
    return array.astype(stored.newbyteorder("="))


def little_endian(array: npt.NDArray[np.generic]) -> bytes:
    """The elements in row-major order, whatever the order in memory."""
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def array_from_bytes(data: bytes | memoryview, spec: TensorSpec) -> npt.NDArray[np.generic]:
    """Undo `little_endian`.

    Raises:
        DamagedArtifact: A boolean is neither 0 nor 1, or a float is not finite.
    """
    stored = CARRIERS[spec.onnx_type]
    return check_values(np.frombuffer(data, stored).reshape(spec.shape)).copy()


def check_values(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Refuse values that no writer stores; returns the array in this machine's byte order.

    Raises:
        DamagedArtifact: A boolean is neither 0 nor 1, or a float is not finite.
    """
    if array.dtype.kind == "b" and array.size and int(array.view(np.uint8).max()) > 1:
        raise DamagedArtifact("a boolean is neither 0 nor 1")
    if not is_finite(array):
        raise DamagedArtifact("holds NaN or infinity")
    return array.astype(array.dtype.newbyteorder("="), copy=False)
