"""Weights that lie on a grid already, as training or another tool left them: taken as exact codes.

Two kinds: float weights of few values, equally spaced, as a decoded file holds them; and float weights that nodes of
the graph round (QuantizeLinear, then DequantizeLinear), as training with fake quantization leaves them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.export.errors import ModelError
from modelpress.export.graphs.operators import attribute_of
from modelpress.export.grids import MAX_BITS, MIN_BITS, along_axis, code_range
from modelpress.export.quantized import QuantizedTensor

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.floating]
_LOOKED_AT = 4096  # elements that tell most weights that lie on no grid
_MOST_VALUES = 1 << MAX_BITS
_OTHER_OPTIONS = ("block_size", "output_dtype", "precision")  # of newer opsets
_GAPS = range(1, 9)  # steps that the smallest distance of two values may be


@dataclass(frozen=True)
class Rounding:
    """The grid of a QuantizeLinear on a weight.

    Attributes:
        scale: Float32, of shape ``()`` or ``(channels,)``.
        zero_point: Int8 or uint8, same shape.
        axis: Of the channels.
    """

    scale: npt.NDArray[Any]
    zero_point: npt.NDArray[Any]
    axis: int

    @classmethod
    def of(
        cls, node: onnx.NodeProto, scale: Array | None, zero_point: Array | None, *, n_axes: int
    ) -> "Rounding | None":
        """The grid of a QuantizeLinear or DequantizeLinear on a tensor of so many axes.

        Returns:
            None where a parameter is not known or of another type, scales lie in blocks, or there are other options.
        """
        if any(attribute_of(node, option, 0) for option in _OTHER_OPTIONS):
            return None
        if scale is not None and not "".join(node.input[2:]):
            zero_point = np.zeros(scale.shape, np.uint8)  # as the operator has it where none is given
        if scale is None or zero_point is None or scale.dtype != np.float32 or scale.size != zero_point.size:
            return None
        if scale.size == 1:
            return cls(scale.reshape(()), zero_point.reshape(()), 0)
        if scale.ndim != 1:
            return None
        return cls(scale, zero_point, attribute_of(node, "axis", 1) % n_axes)

    def codes_of(self, weight: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
        """What QuantizeLinear gives, less the zero point."""
        n_axes = weight.ndim
        zero = along_axis(self.zero_point, self.axis, n_axes).astype(np.int16)
        limits = np.iinfo(self.zero_point.dtype)
        steps = np.rint(weight.astype(np.float32) / along_axis(self.scale, self.axis, n_axes))
        # bounds in float first: far values would wrap
        codes: npt.NDArray[np.int16] = np.clip(steps, limits.min - zero, limits.max - zero).astype(np.int16)
        return codes


def rounded_weight(weight: Floats, rounding: Rounding) -> QuantizedTensor | None:
    """A weight as the codes that nodes of the graph make of it; these nodes make the same codes of what is decoded.

    Returns:
        None where codes of 8 bits do not reproduce them.

    Example:
        >>> grid = Rounding(np.float32(0.5).reshape(()), np.int8(0).reshape(()), 0)
        >>> rounded_weight(np.array([[0.6, -0.9]], np.float32), grid).codes
        array([[ 1, -2]], dtype=int8)
    """
    codes = rounding.codes_of(weight)
    made = tensor_of_codes(codes, rounding.scale, rounding.axis, weight.dtype.newbyteorder("="))
    if made is None or not np.array_equal(rounding.codes_of(made.dequantize()), codes):
        return None
    return made


def tensor_of_codes(
    codes: npt.NDArray[np.int16],
    scale: npt.NDArray[np.float32],
    axis: int,
    dtype: npt.DTypeLike = np.float32,
) -> QuantizedTensor | None:
    """Differences from a zero point, and what a step of them is worth, as a tensor; None where 8 bits do not hold them.

    Codes that reach further to one side than symmetric ones are counted from the least on; their values may be
    rounded differently in the last bit.

    Args:
        codes: At least one axis.
        scale: Shape ``()`` or ``(channels,)``.
        axis: Of the channels.
        dtype: Of the weight.
    """
    least, most = int(codes.min(initial=0)), int(codes.max(initial=0))
    try:
        if max(most, -least) <= code_range(bits=MAX_BITS, signed=True)[1]:
            return _symmetric(codes, scale, axis, dtype)
        if most - least >= _MOST_VALUES:
            return None

        counted = (codes - np.int16(least)).astype(np.uint8)
        offset = np.asarray(np.float32(least) * scale, np.float32)
        return QuantizedTensor(counted, MAX_BITS, scale, offset, channel_axis=axis, dtype=dtype)
    except ModelError:  # a scale that is zero or not finite
        return None


def weight_on_grid(
    weight: Floats, *, channel_axis: int | None, signed_zeros: bool = False
) -> QuantizedTensor | None:
    """A weight of few, equally spaced values as codes that give it back exactly.

    One scale for all, or one for each channel, whatever is found first. Grids symmetric to zero are recognised, and
    those from the least value on, as `modelpress.export.post_training.rounding` lays them.

    Args:
        weight: Float32 or float16; others lie on no grid.
        channel_axis: One scale for each position along it, where one is not enough; None: one for all.
        signed_zeros: Whether -0.0 is another value than 0.0, which codes do not tell apart.

    Returns:
        None where it lies on no such grid.

    Example:
        >>> found = weight_on_grid(np.array([[0.1, -0.3], [0.0, 0.2]], np.float32), channel_axis=0)
        >>> found.codes, found.scale, found.bits
        (array([[ 1, -3],
               [ 0,  2]], dtype=int8), array(0.1, dtype=float32), 3)
    """
    if not weight.size or weight.dtype.kind != "f" or weight.dtype.itemsize > np.float32().itemsize:
        return None

    flat = weight.reshape(-1)
    if len(np.unique(flat[:_LOOKED_AT])) <= _MOST_VALUES:
        found = _on_grid(weight, [flat], None, signed_zeros)
        if found is not None:
            return found

    if channel_axis is None:
        return None
    rows = np.moveaxis(weight, channel_axis, 0).reshape(weight.shape[channel_axis], -1)
    return _on_grid(weight, list(rows), channel_axis, signed_zeros)


def _on_grid(
    weight: Floats, rows: list[Floats], axis: int | None, signed_zeros: bool
) -> QuantizedTensor | None:
    """All rows on symmetric grids, or all on grids from their least value on."""
    values = []
    for row in rows:
        if len(np.unique(row[:_LOOKED_AT])) > _MOST_VALUES:
            return None
        found = np.unique(row)
        if len(found) > _MOST_VALUES:
            return None
        values.append(found)

    # an asymmetric grid of few values may look like a symmetric one of many, most of them not in use
    exact = []
    for lay in (_symmetric_grid, _grid_from_least):
        try:
            grid = lay(weight, values, axis)
        except ModelError:  # values or steps beyond what a grid may reach
            continue
        if grid is not None and _is_exact(grid, weight, signed_zeros):
            exact.append(grid)

    return min(exact, key=lambda grid: grid.bits, default=None)


def _symmetric_grid(weight: Floats, values: list[Floats], axis: int | None) -> QuantizedTensor | None:
    """On both sides of zero.

    Raises:
        ModelError: It leaves the numbers that a grid may reach.
    """
    steps = []
    for row in values:
        step = _step(np.unique(np.abs(row)), np.float32(0), code_range(bits=MAX_BITS, signed=True)[1])
        if step is None:
            return None
        steps.append(step)

    scale = _parameter(steps, axis)
    codes = np.rint(weight.astype(np.float64) / along_axis(scale, axis or 0, weight.ndim))
    return _symmetric(codes.astype(np.int16), scale, axis or 0, weight.dtype)


def _grid_from_least(weight: Floats, values: list[Floats], axis: int | None) -> QuantizedTensor | None:
    """Zeros are kept apart.

    Raises:
        ModelError: As for `_symmetric_grid`.
    """
    steps, offsets = [], []
    for row in values:
        kept = row[row != 0]
        least = np.float32(kept[0] if len(kept) else 0)
        step = _step(kept, least, _MOST_VALUES - 1)
        if step is None:
            return None
        steps.append(step)
        offsets.append(least)

    scale, offset = _parameter(steps, axis), _parameter(offsets, axis)
    support = weight != 0
    start = along_axis(offset, axis or 0, weight.ndim).astype(np.float64)
    codes = np.rint((weight - start) / along_axis(scale, axis or 0, weight.ndim))
    codes = np.where(support, codes, 0)
    return QuantizedTensor(
        codes.astype(np.uint8),
        bits=max(int(codes.max()).bit_length(), MIN_BITS),
        scale=scale,
        offset=offset,
        support=None if support.all() else support,
        channel_axis=axis or 0,
        dtype=weight.dtype.newbyteorder("="),
    )


def _parameter(values: list[np.float32], axis: int | None) -> npt.NDArray[np.float32]:
    """One value for all, or one for each channel."""
    array = np.array(values, np.float32)
    return array.reshape(()) if axis is None else array


def _step(values: Floats, start: np.float32, most: int) -> np.float32 | None:
    """The step of a grid that starts at a value and holds others, in ascending order; None without one.

    Its arithmetic is that of decoding: a product in float32, then a sum, then the type of the values.
    """
    distances = values.astype(np.float64) - float(start)
    distances = distances[distances > 0]
    if not len(distances):
        return np.float32(1)

    wanted = values[values.astype(np.float64) > float(start)]
    smallest = float(np.diff(distances, prepend=0.0).min())
    if smallest <= 0:  # values that are lost beside the start of the grid
        return None

    for parts in _GAPS:
        codes = np.rint(distances * (parts / smallest))
        if codes[-1] > most:
            break

        # the quotients are the step, each but for the rounding of its value
        quotients = distances[-8:] / codes[-8:]
        near, first = np.float32(quotients.mean()), np.float32(distances[0] / codes[0])
        with np.errstate(over="ignore", under="ignore"):
            around = [np.nextafter(near, bound) for bound in (np.float32(0), np.float32(np.inf))]
            for step in dict.fromkeys([*quotients.astype(np.float32), first, near, *around]):
                decoded = codes.astype(np.float32) * step + start
                if np.array_equal(decoded.astype(values.dtype), wanted):
                    return np.float32(step)
    return None


def _symmetric(
    codes: npt.NDArray[np.int16], scale: npt.NDArray[np.float32], axis: int, dtype: npt.DTypeLike
) -> QuantizedTensor:
    """Codes in the narrowest width that holds them.

    Raises:
        ModelError: There is none, or the scale is no scale.
    """
    largest = int(np.abs(codes).max(initial=0))
    bits = max(largest.bit_length() + 1, MIN_BITS)
    return QuantizedTensor(
        codes.astype(np.int8), bits, scale, channel_axis=axis, dtype=np.dtype(dtype).newbyteorder("=")
    )


def _is_exact(tensor: QuantizedTensor, weight: Floats, signed_zeros: bool) -> bool:
    decoded = tensor.dequantize()
    if not signed_zeros:
        return np.array_equal(decoded, weight)
    return decoded.tobytes() == np.ascontiguousarray(weight, decoded.dtype).tobytes()
