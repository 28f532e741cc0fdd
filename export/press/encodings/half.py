"""Encodings 11 and 12: float32 tensors whose every element float16 (or bfloat16) holds exactly.

Scales and biases are rounded to half precision where the recipe says so, before anything is measured; here they
are stored in two bytes because nothing is lost.
"""

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.export.coding.byte_parts import PartReader, PartWriter
from modelpress.export.errors import DamagedArtifact
from modelpress.export.files.blocks import blocks
from modelpress.export.press.encodings.grid import fits_half
from modelpress.export.tensor_spec import TensorSpec

Array = npt.NDArray[np.generic]


def fits_float16(array: Array) -> bool:
    """Whether encoding 11 holds this array."""
    return array.dtype == np.float32 and fits_half(array.view(np.ndarray))


def fits_bfloat16(array: Array) -> bool:
    """Whether encoding 12 holds this array: the low half of every float32 is zero."""
    return array.dtype == np.float32 and not any(
        np.any(_words(block) & np.uint32(0xFFFF)) for block in blocks(array)
    )


def encode_float16(array: Array) -> PartWriter:
    """Two bytes for each element."""
    return PartWriter().add("payload", array.astype("<f2").tobytes())


def encode_bfloat16(array: Array) -> PartWriter:
    """The high half of each element."""
    return PartWriter().add("payload", (_words(array) >> np.uint32(16)).astype("<u2").tobytes())


def decode_float16(reader: PartReader, spec: TensorSpec) -> Array:
    """Undo `encode_float16`.

    Raises:
        DamagedArtifact: The tensor is not float32, or an element is not finite.
    """
    return _finite(np.frombuffer(_take(reader, spec), "<f2").astype(np.float32), spec)


def decode_bfloat16(reader: PartReader, spec: TensorSpec) -> Array:
    """Undo `encode_bfloat16`.

    Raises:
        DamagedArtifact: As for `decode_float16`.
    """
    # bfloat16 is the upper half of a float32, and NumPy has no type for it
    words = np.frombuffer(_take(reader, spec), "<u2").astype(np.uint32) << np.uint32(16)
    return _finite(words.view(np.float32), spec)


def _words(array: Array) -> npt.NDArray[np.uint32]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint32)


def _take(reader: PartReader, spec: TensorSpec) -> bytes:
    if spec.onnx_type != onnx.TensorProto.FLOAT:
        raise DamagedArtifact("only float32 tensors are stored in half precision")
    return reader.take("payload", 2 * spec.size)


def _finite(array: npt.NDArray[np.float32], spec: TensorSpec) -> Array:
    if not np.isfinite(array).all():
        raise DamagedArtifact("holds NaN or infinity")
    return array.reshape(spec.shape)
