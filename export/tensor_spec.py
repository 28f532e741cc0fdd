"""Shape and type of a tensor, what is known of it before it is made; and what its elements are stored as."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

_PLAIN: dict[int, np.dtype[np.generic]] = {
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

# What elements of types that NumPy has not are made of: numbers of the same bits, narrow ones in a byte each
_MADE_OF: dict[int, np.dtype[np.generic]] = {
    onnx.TensorProto.BFLOAT16: np.dtype("<u2"),
    onnx.TensorProto.FLOAT8E4M3FN: np.dtype("u1"),
    onnx.TensorProto.FLOAT8E4M3FNUZ: np.dtype("u1"),
    onnx.TensorProto.FLOAT8E5M2: np.dtype("u1"),
    onnx.TensorProto.FLOAT8E5M2FNUZ: np.dtype("u1"),
    onnx.TensorProto.UINT4: np.dtype("u1"),
    onnx.TensorProto.INT4: np.dtype("i1"),
    onnx.TensorProto.FLOAT4E2M1: np.dtype("u1"),
    onnx.TensorProto.FLOAT8E8M0: np.dtype("u1"),
    onnx.TensorProto.UINT2: np.dtype("u1"),
    onnx.TensorProto.INT2: np.dtype("i1"),
}

# ONNX TensorProto.DataType -> little-endian NumPy type. Texts and complex numbers stay in the graph.
DTYPES: dict[int, np.dtype[np.generic]] = {
    **_PLAIN,
    **{kind: np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)) for kind in _MADE_OF},
}

ONNX_TYPES = {dtype: onnx_type for onnx_type, dtype in DTYPES.items()}  # the other way round

# ONNX TensorProto.DataType -> type of the numbers that are stored for the elements.
CARRIERS = {**_PLAIN, **_MADE_OF}

INTEGER_TYPES = frozenset(kind for kind, dtype in CARRIERS.items() if dtype.kind in "iu") - {
    *(kind for kind in _MADE_OF if "float" in DTYPES[kind].name),
}

# Bits of an element, where they are less than a byte.
FEW_BITS: dict[int, int] = {
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.FLOAT4E2M1: 4,
    onnx.TensorProto.UINT2: 2,
    onnx.TensorProto.INT2: 2,
}

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

    @property
    def n_raw_bytes(self) -> int:
        """Bytes of the elements in an ONNX file, where those of few bits are packed."""
        bits = FEW_BITS.get(self.onnx_type)
        return self.n_bytes if bits is None else (bits * self.size + 7) // 8


def carrier_of(array: npt.NDArray[Any]) -> npt.NDArray[np.generic]:
    """The numbers that are stored for the elements of an array.

    Example:
        >>> carrier_of(np.array([1, -2], DTYPES[onnx.TensorProto.INT4]))
        array([ 1, -2], dtype=int8)
    """
    onnx_type = ONNX_TYPES.get(array.dtype.newbyteorder("<"))
    if onnx_type not in _MADE_OF:
        return array

    bits, dtype = FEW_BITS.get(onnx_type), _MADE_OF[onnx_type].newbyteorder("=")
    if bits is None:
        return array.view(dtype)

    # what the rest of the byte holds is nobody's business: with a sign, it is made to follow it
    half = np.uint8(1 << bits - 1 if dtype.kind == "i" else 0)
    numbers = array.view(np.uint8) & np.uint8((1 << bits) - 1)
    return ((numbers ^ half) - half).view(dtype)


def of_carrier(numbers: npt.NDArray[np.generic], onnx_type: int) -> npt.NDArray[np.generic]:
    """Undo `carrier_of`.

    Raises:
        ValueError: An element has more bits than its type.
    """
    if onnx_type not in _MADE_OF:
        return numbers
    bits = FEW_BITS.get(onnx_type)
    if bits is not None and numbers.size:
        low = -(1 << bits - 1) if numbers.dtype.kind == "i" else 0
        least, most = int(numbers.min()), int(numbers.max())
        if least < low or most >= low + (1 << bits):
            raise ValueError(
                f"elements run from {least} to {most}; {bits} bits hold {low} to {low + (1 << bits) - 1}"
            )
    return numbers.view(DTYPES[onnx_type])


def raw_bytes(array: npt.NDArray[Any]) -> memoryview:
    """What ``raw_data`` of an ONNX tensor holds: little-endian; of few bits several elements in a byte, lowest first.

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


def array_of_raw(data: memoryview, spec: TensorSpec) -> npt.NDArray[Any]:
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
