"""What is packed: tensors of integer codes with their scales, and the graph that uses them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.export.coding.core import core
from modelpress.export.coding.core_functions import CoreFunctions
from modelpress.export.errors import ModelError, NoSuchTensor
from modelpress.export.files.blocks import blocks
from modelpress.export.grids import along_axis, code_range, decoded
from modelpress.export.shown import Facts, Shown, some_names
from modelpress.export.tensor_spec import ONNX_TYPES, TensorSpec, carrier_of

FloatArray = npt.NDArray[np.float32]
_LARGEST = 2.0**127  # far enough from the end of float32 that no rounding reaches it; FORMAT.md, "Grid"
DECODED_DTYPES = (np.dtype(np.float32), np.dtype(np.float16))
_LARGEST_OF: dict[np.dtype[Any], float] = {d: float(np.finfo(d).max) for d in DECODED_DTYPES}


@dataclass(frozen=True, eq=False, repr=False)
class QuantizedTensor(Shown):
    """One weight as integer codes; the single form that freezing, coding and every ONNX flavour share.

    The value of an entry is ``(code * scale + offset) * channel_scale``, each step rounded to float32 and the
    result to `dtype`, or exactly 0.0 where ``support`` is false.

    Attributes:
        codes: Any shape but 0-d, here ``(out, ...)``. Unsigned (uint8, ``0 .. 2**bits - 1``) with an offset,
            signed (int8, ``-(2**(bits-1) - 1) .. 2**(bits-1) - 1``) without. 0 outside the support.
        bits: Code width in bits, 2 to 8.
        scale: Shape ``()`` or ``(out,)``; positive; weight units per code step.
        offset: Shape of ``scale``, or None for symmetric codes: the value of code 0.
        support: Shape of ``codes``: false for exact zeros. None when there are no exact zeros besides code 0;
            always None without an offset, where code 0 is the exact zero.
        channel_scale: Shape ``(out,)``, or None: the factor of a folded batch norm, of either sign.
        channel_axis: Which axis counts the ``out`` channels; 0 for convolutions, 1 for an ``(in, out)`` matrix.
        dtype: Type of the decoded weight, float32 or float16.

    Raises:
        ModelError: An array has a wrong shape or type, a code is out of range, a scale is not positive and
            finite.

    Example:
        >>> w = QuantizedTensor(np.array([[3, -1, 0]], np.int8), bits=3, scale=np.float32(0.5))
        >>> w.dequantize()
        array([[ 1.5, -0.5,  0. ]], dtype=float32)
    """

    codes: npt.NDArray[np.integer]
    bits: int
    scale: FloatArray | np.float32
    offset: FloatArray | np.float32 | None = None
    support: npt.NDArray[np.bool_] | None = None
    channel_scale: FloatArray | None = None
    channel_axis: int = 0
    dtype: npt.DTypeLike = np.float32

    def __post_init__(self) -> None:
        _check_codes(self)
        _check_parameters(self)
        if self.support is not None:
            _check_support(self, self.support)

    @classmethod
    def of_checked(cls, **fields: Any) -> "QuantizedTensor":
        """A tensor whose fields a decoder has checked one by one; what they give together still is.

        Raises:
            ModelError: The largest value overflows.
        """
        tensor = cls.of_decoded(**fields)
        _check_magnitude(tensor)
        return tensor

    @classmethod
    def of_decoded(cls, **fields: Any) -> "QuantizedTensor":
        """A tensor of which all has been checked."""
        tensor = object.__new__(cls)
        tensor.__dict__.update(fields)
        return tensor

    def summary(self) -> Facts:
        """What there is to say in a few lines."""
        grid = "symmetric" if self.offset is None else "asymmetric"
        scales = "one scale" if np.ndim(self.scale) == 0 else f"{np.size(self.scale)} scales"
        folded = "" if self.channel_scale is None else ", batch norm folded in"
        zeros = 1 - np.count_nonzero(self.nonzero) / self.codes.size if self.codes.size else 0.0
        return {
            "shape": "x".join(map(str, self.shape)),
            "codes": f"{self.bits} bits, {grid}, {scales}{folded}",
            "zeros": f"{zeros:.2%}",
            "decoded": str(np.dtype(self.dtype)),
        }

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return self.codes.shape

    @property
    def spec(self) -> TensorSpec:
        """Shape and type of the decoded weight."""
        return TensorSpec(self.shape, ONNX_TYPES[np.dtype(self.dtype).newbyteorder("<")])

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code allowed."""
        return code_range(bits=self.bits, signed=self.offset is None)

    @property
    def nonzero(self) -> npt.NDArray[np.bool_]:
        """True where the code is no exact zero; same shape as the weight."""
        if self.offset is None:
            return np.asarray(self.codes != 0, np.bool_)
        return np.ones(self.shape, np.bool_) if self.support is None else self.support

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return self.shape[self.channel_axis]

    def dequantize(self) -> npt.NDArray[np.floating]:
        """The weight as `dtype`, same shape: what every runtime computes with."""
        functions = core()
        if functions is not None:
            return _dequantized(functions, self)

        scale = np.asarray(self.scale, np.float32)
        offset = None if self.offset is None else np.asarray(self.offset, np.float32)
        values: npt.NDArray[np.floating] = decoded(self.codes, scale, offset, axis=self.channel_axis)
        if self.channel_scale is not None:
            values *= along_axis(self.channel_scale, self.channel_axis, values.ndim)

        # exact zeros last: offset and factor would move them
        if self.support is not None:
            np.copyto(values, np.float32(0), where=~self.support)
        elif self.offset is None and self.channel_scale is not None:
            values[self.codes == 0] = 0  # a negative factor made -0.0 of the exact zeros
        return values.astype(self.dtype, copy=False)

    def equals(self, other: object) -> bool:
        """Bit-exact equality of codes, support and parameters."""
        return (
            isinstance(other, QuantizedTensor)
            and (self.bits, self.channel_axis) == (other.bits, other.channel_axis)
            and np.dtype(self.dtype) == np.dtype(other.dtype)
            and _identical(self.codes, other.codes)
            and _identical(self.scale, other.scale)
            and _identical(self.offset, other.offset)
            and _identical(self.support, other.support)
            and _identical(self.channel_scale, other.channel_scale)
        )


Tensor = QuantizedTensor | npt.NDArray[np.generic]
_T = TypeVar("_T")


class TensorsByName(dict[str, _T]):
    """A dictionary that answers a missing name with the nearest one."""

    def __missing__(self, name: object) -> _T:
        raise NoSuchTensor(name, self)

    def __repr__(self) -> str:
        """One line: the tensors themselves would fill pages."""
        return f"{len(self)} tensors: {some_names(self)}"


@dataclass(frozen=True, eq=False, repr=False)
class QuantizedModel(Shown):
    """An ONNX graph without its weights, and the weights.

    Attributes:
        graph: The model with an empty initializer list; nodes refer to tensors by name.
        tensors: Every initializer by name, in file order; quantized or as it is. A mapping that makes its
            tensors when asked keeps only one of them in memory.
    """

    graph: onnx.ModelProto
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if type(self.tensors) is dict:
            object.__setattr__(self, "tensors", TensorsByName(self.tensors))

    def quantized(self) -> dict[str, QuantizedTensor]:
        """The quantized tensors only."""
        return TensorsByName({name: t for name, t in self.tensors.items() if isinstance(t, QuantizedTensor)})

    def summary(self) -> Facts:
        """What there is to say in a few lines; tensors that are made when asked for are not asked for."""
        graph = self.graph.graph
        opset = next((o.version for o in self.graph.opset_import if not o.domain), "unknown")
        facts = {
            "graph": f"{graph.name or 'no name'}, {len(graph.node)} nodes, opset {opset}",
            "inputs": ", ".join(value.name for value in graph.input),
            "outputs": ", ".join(value.name for value in graph.output),
        }
        if isinstance(self.tensors, dict):
            facts["quantized"] = widths_of(self.tensors.values())
        return {**facts, "tensors": f"{len(self.tensors)}: {some_names(self.tensors)}"}

    def equals(self, other: "QuantizedModel") -> bool:
        """Bit-exact equality of graph and tensors, order included."""
        return (
            self.graph.SerializeToString(deterministic=True)
            == other.graph.SerializeToString(deterministic=True)
            and list(self.tensors) == list(other.tensors)
            and all(tensors_equal(t, other.tensors[name]) for name, t in self.tensors.items())
        )


def widths_of(tensors: Iterable[Tensor]) -> str:
    """How many tensors are quantized, and in which widths.

    Example:
        >>> codes = QuantizedTensor(np.zeros((2, 2), np.int8), bits=4, scale=np.float32(1))
        >>> widths_of([codes, np.zeros(3, np.float32)])
        '1 in 4 bits'
    """
    counts = Counter(tensor.bits for tensor in tensors if isinstance(tensor, QuantizedTensor))
    return ", ".join(f"{n} in {bits} bits" for bits, n in sorted(counts.items())) or "none"


_SUPPORT = 2  # of the flags of a grid, the only one that arrays do not tell; FORMAT.md, "Grid"


def _dequantized(functions: CoreFunctions, tensor: QuantizedTensor) -> npt.NDArray[np.floating]:
    values: npt.NDArray[np.floating] = np.empty(tensor.shape, tensor.dtype)
    functions.dequantize(
        ONNX_TYPES[np.dtype(tensor.dtype).newbyteorder("<")],
        0 if tensor.support is None else _SUPPORT,
        tensor.channels,
        prod(tensor.shape[tensor.channel_axis + 1 :]),
        np.ascontiguousarray(tensor.codes),
        None if tensor.support is None else np.ascontiguousarray(tensor.support),
        _stored(tensor.scale),
        _stored(tensor.offset),
        _stored(tensor.channel_scale),
        values,
    )
    return values


def _stored(parameter: FloatArray | np.float32 | None) -> FloatArray | None:
    """As it lies in a file."""
    return None if parameter is None else np.ascontiguousarray(parameter, "<f4")


def dense_array(tensor: Tensor) -> npt.NDArray[np.generic]:
    """The array an unaware runtime needs: dequantized if need be."""
    return tensor.dequantize() if isinstance(tensor, QuantizedTensor) else tensor


def tensors_equal(left: Tensor, right: Tensor) -> bool:
    """Bit-exact equality of two tensors of either kind."""
    if isinstance(left, QuantizedTensor):
        return left.equals(right)
    return not isinstance(right, QuantizedTensor) and _identical(left, right)


def _identical(left: object, right: object) -> bool:
    if left is None or right is None:
        return left is right
    a, b = _native(np.asarray(left)), _native(np.asarray(right))
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(_bytes_of(a), _bytes_of(b))


def _bytes_of(array: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    return carrier_of(np.ascontiguousarray(array)).reshape(-1).view(np.uint8)


def _native(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The same values in this machine's byte order."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_codes(tensor: QuantizedTensor) -> None:
    low, high = tensor.code_range
    expected = np.dtype(np.int8 if tensor.offset is None else np.uint8)
    if tensor.codes.dtype != expected:
        raise ModelError(f"codes have type {tensor.codes.dtype}; expected {expected}")

    if tensor.codes.ndim == 0:
        raise ModelError("a 0-d tensor has no channels: keep it as it is")
    if not 0 <= tensor.channel_axis < tensor.codes.ndim:
        raise ModelError(f"channel axis is {tensor.channel_axis}; the tensor has {tensor.codes.ndim} axes")
    if np.dtype(tensor.dtype) not in DECODED_DTYPES:
        raise ModelError(
            f"weights of type {np.dtype(tensor.dtype)} cannot be quantized; expected float32 or float16"
        )

    if tensor.codes.size and (int(tensor.codes.min()) < low or int(tensor.codes.max()) > high):
        raise ModelError(
            f"codes run from {tensor.codes.min()} to {tensor.codes.max()}; {tensor.bits} bits allow {low} to {high}"
        )


def _check_parameters(tensor: QuantizedTensor) -> None:
    channels = tensor.channels
    for name, allowed in (
        ("scale", ((), (channels,))),
        ("offset", (np.shape(tensor.scale),)),
        ("channel_scale", ((channels,),)),
    ):
        value = getattr(tensor, name)
        if value is None:
            continue

        array = np.asarray(value)
        if array.dtype != np.float32:
            raise ModelError(f"{name} has type {array.dtype}; expected float32")
        if array.shape not in allowed:
            raise ModelError(f"{name} has shape {array.shape}; expected {' or '.join(map(str, allowed))}")

        if not np.isfinite(array).all():
            raise ModelError(f"{name} is not finite")

    if not np.all(np.asarray(tensor.scale) > 0):
        raise ModelError("scale is not positive")

    _check_magnitude(tensor)


def _check_magnitude(tensor: QuantizedTensor) -> None:
    if not np.isfinite(_largest_value(tensor)):
        raise ModelError(f"the largest code times scale overflows {np.dtype(tensor.dtype)}")


def _largest_value(tensor: QuantizedTensor) -> float:
    """An upper bound of all magnitudes; infinite where the decoded type ends before it."""
    bounds = np.asarray(tensor.scale, np.float64) * tensor.code_range[1]
    if tensor.offset is not None:
        bounds = bounds + np.abs(np.asarray(tensor.offset, np.float64))

    before = after = _largest(bounds)
    if tensor.channel_scale is not None:
        factors = np.abs(tensor.channel_scale)
        after = before * _largest(factors) if np.ndim(bounds) == 0 else _largest(bounds * factors)

    return after if before < _LARGEST and after < largest_in(tensor.dtype) else float("inf")


def largest_in(dtype: npt.DTypeLike) -> float:
    """What no decoded value of a type reaches.

    Example:
        >>> largest_in(np.float16)
        65504.0
    """
    return min(_LARGEST, _LARGEST_OF[np.dtype(dtype).newbyteorder("=")])


def _largest(values: npt.NDArray[np.floating] | np.floating) -> float:
    return float(values) if np.ndim(values) == 0 else float(values.max(initial=0.0))


def _check_support(tensor: QuantizedTensor, support: npt.NDArray[np.bool_]) -> None:
    if tensor.offset is None:
        raise ModelError("symmetric codes need no support: code 0 is the exact zero")
    if support.dtype != np.bool_ or support.shape != tensor.shape:
        raise ModelError(
            f"support is {support.dtype} of shape {support.shape}; expected bool of shape {tensor.shape}"
        )

    # in blocks: a mask of all of a large tensor would double its memory
    for codes, kept in zip(blocks(tensor.codes), blocks(support), strict=True):
        if np.any(codes * ~kept):
            raise ModelError("codes outside the support must be 0")
