"""Large arrays a piece at a time: what is computed of a piece takes little memory."""

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

_Element = TypeVar("_Element", bound=np.generic)

BLOCK_ELEMENTS = 1 << 20


def is_of_numpy(dtype: np.dtype[np.generic]) -> bool:
    """Whether a type is one of NumPy's own, of either byte order, and none that another package adds.

    Example:
        >>> import onnx
        >>> is_of_numpy(np.dtype(">f4")), is_of_numpy(onnx.helper.tensor_dtype_to_np_dtype(16))
        (True, False)
    """
    return np.dtype(dtype.type).isbuiltin == 1  # that of `dtype` itself says 0 once its byte order was named


def is_finite(array: npt.NDArray[np.generic]) -> bool:
    """Whether there is neither infinity nor NaN; looks at the floats that NumPy itself has.

    Example:
        >>> is_finite(np.float32([1, -np.inf])), is_finite(np.arange(3))
        (False, True)
    """
    is_float = array.dtype.kind == "f" and is_of_numpy(array.dtype)
    return not is_float or all(bool(np.isfinite(block).all()) for block in blocks(array))


def blocks(array: npt.NDArray[_Element]) -> Iterator[npt.NDArray[_Element]]:
    """Consecutive pieces of the elements in row-major order, views where the array is contiguous.

    Example:
        >>> [block.size for block in blocks(np.zeros((3, 500_000)))]
        [1048576, 451424]
    """
    flat = array.reshape(-1)
    for start in range(0, flat.size, BLOCK_ELEMENTS):
        yield flat[start : start + BLOCK_ELEMENTS]
