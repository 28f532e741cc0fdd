"""The elements of a tensor as ONNX stores them: little-endian; of four and two bits several in a byte, lowest first."""

import numpy as np
import numpy.typing as npt

from modelpress.export.tensor_spec import (
    CARRIERS,
    DTYPES,
    FEW_BITS,
    ONNX_TYPES,
    TensorSpec,
    carrier_of,
    of_carrier,
)

Array = npt.NDArray[np.generic]


def raw_bytes(array: Array) -> memoryview:
    """What ``raw_data`` holds.

    Example:
        >>> four_bits = of_carrier(np.array([1, -2, 3], np.int8), 22)
        >>> raw_bytes(four_bits).hex()
        'e103'
    """
    dtype = array.dtype.newbyteorder("<")
    numbers = carrier_of(np.ascontiguousarray(array)).reshape(-1)
    bits = FEW_BITS.get(ONNX_TYPES[dtype])
    if bits is None:
        return np.ascontiguousarray(numbers, numbers.dtype.newbyteorder("<")).view(np.uint8).data

    per_byte = 8 // bits
    padded = np.zeros(-(-numbers.size // per_byte) * per_byte, np.uint8)
    padded[: numbers.size] = numbers.view(np.uint8) & np.uint8((1 << bits) - 1)
    combined: npt.NDArray[np.uint8] = np.bitwise_or.reduce(
        padded.reshape(-1, per_byte) << _shifts(bits), axis=1
    )
    return combined.data


def array_of_raw(data: memoryview, spec: TensorSpec) -> Array:
    """Undo `raw_bytes`, without a copy where elements have whole bytes.

    Example:
        >>> array_of_raw(memoryview(bytes.fromhex("e103")), TensorSpec((3,), 22)).astype(int)
        array([ 1, -2,  3])
    """
    dtype, bits = CARRIERS[spec.onnx_type], FEW_BITS.get(spec.onnx_type)
    if bits is None:
        return of_carrier(np.frombuffer(data, dtype), spec.onnx_type).reshape(spec.shape)

    stored = np.frombuffer(data, np.uint8)[:, np.newaxis]
    numbers = (stored >> _shifts(bits) & np.uint8((1 << bits) - 1)).reshape(-1)[: spec.size]
    return numbers.view(DTYPES[spec.onnx_type]).reshape(spec.shape)


def _shifts(bits: int) -> npt.NDArray[np.uint8]:
    return np.arange(0, 8, bits, dtype=np.uint8)
