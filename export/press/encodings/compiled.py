"""Tensors of every encoding that is not compressed, read by the compiled codes in one call each; `press.h` says how."""

from collections import Counter

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.byte_parts import PARTS
from modelpress.export.coding.core_functions import CoreFunctions, Parts
from modelpress.export.errors import DamagedArtifact
from modelpress.export.press.encodings.file_state import FileState
from modelpress.export.press.encodings.grid import QUANTIZED_TYPES
from modelpress.export.quantized import FloatArray, QuantizedTensor, Tensor
from modelpress.export.tensor_spec import CARRIERS, DTYPES, TensorSpec

COMPRESSED = frozenset((4, 18))  # byte planes, elements: Python's own zlib and lzma decompress them
MIXED, SPLIT_MIXED, LINKED, SPLIT_LINKED = 10, 15, 20, 21
_OF_CONTEXTS = frozenset((MIXED, SPLIT_MIXED, LINKED, SPLIT_LINKED))
_QUANTIZED = frozenset((1, 2, 3, 5, 6, 7, 8, 9, MIXED, 17, LINKED))
_OFFSET, _PER_CHANNEL = 1, 4  # flags of a grid; FORMAT.md


def decode(
    functions: CoreFunctions, number: int, blob: bytes, spec: TensorSpec, state: FileState
) -> tuple[Tensor, Counter[str]]:
    """A tensor, and the bytes that each part of its blob took.

    Raises:
        DamagedArtifact: The blob contradicts itself or its spec.
    """
    try:
        if number in _QUANTIZED:
            return _quantized(functions, number, blob, spec, state)
        values, parts = _filled(functions, number, blob, spec, state)
        return values, _ledger(parts)
    except functions.Damaged as error:
        raise DamagedArtifact(str(error)) from error


def decode_dense(
    functions: CoreFunctions, number: int, blob: bytes, spec: TensorSpec, state: FileState
) -> npt.NDArray[np.generic]:
    """The values of a tensor in one pass, whether they are quantized or not.

    Raises:
        DamagedArtifact: As for `decode`.
    """
    try:
        return _filled(functions, number, blob, spec, state)[0]
    except functions.Damaged as error:
        raise DamagedArtifact(str(error)) from error


def _filled(
    functions: CoreFunctions, number: int, blob: bytes, spec: TensorSpec, state: FileState
) -> tuple[npt.NDArray[np.generic], Parts]:
    values = np.empty(spec.shape, CARRIERS[spec.onnx_type].newbyteorder("="))
    mixing = state.mixing.state if number in _OF_CONTEXTS else None
    parts = functions.decode_values(number, spec.onnx_type, spec.shape, blob, state.opened, mixing, values)
    return values, parts


def _quantized(
    functions: CoreFunctions, number: int, blob: bytes, spec: TensorSpec, state: FileState
) -> tuple[Tensor, Counter[str]]:
    if spec.onnx_type not in QUANTIZED_TYPES or not spec.shape:
        raise DamagedArtifact("a quantized tensor must be float32 or float16 with at least one axis")

    mixing = state.mixing.state if number in _OF_CONTEXTS else None
    bits, axis, flags, scale, offset, channel_scale, codes, support, parts = functions.decode_codes(
        number, spec.onnx_type, spec.shape, blob, state.opened, mixing
    )
    per_scale = (spec.shape[axis],) if flags & _PER_CHANNEL else ()
    tensor = QuantizedTensor.of_decoded(
        codes=np.frombuffer(codes, np.uint8 if flags & _OFFSET else np.int8).reshape(spec.shape),
        bits=bits,
        scale=_floats(scale, per_scale),
        offset=None if offset is None else _floats(offset, per_scale),
        support=None if support is None else np.frombuffer(support, np.bool_).reshape(spec.shape),
        channel_scale=None if channel_scale is None else _floats(channel_scale, (-1,)),
        channel_axis=axis,
        dtype=DTYPES[spec.onnx_type].newbyteorder("="),
    )
    return tensor, _ledger(parts)


def _floats(data: bytearray, shape: tuple[int, ...]) -> FloatArray:
    return np.frombuffer(data, np.float32).reshape(shape)


def _ledger(parts: Parts) -> Counter[str]:
    return Counter(dict(zip(PARTS, parts, strict=True)))
