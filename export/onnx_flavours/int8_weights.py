"""Eight-bit weights on one scale per output channel, made from the codes and scales of an artifact.

The weights of an artifact sit on few values, ``code * scale + offset``. A scale of their int8 form is chosen such
that the values in use fall on, or near to, int8 integers; the factor of a folded batch norm goes into the scale.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelpress.export.grids import along_axis
from modelpress.export.onnx_flavours.int8_scales import Wide, least_error_scales
from modelpress.export.quantized import QuantizedTensor, Tensor, dense_array

FloatArray = npt.NDArray[np.float32]
INT8_LIMIT, REDUCED_LIMIT = 127, 63


@dataclass(frozen=True, eq=False)
class Int8Weight:
    """One weight in eight bits; its values are ``codes() * scale`` along the channels.

    Attributes:
        name: Of the int8 tensor in the graph.
        source: What it is made from.
        multiplier: Float32, shape ``()`` or ``(out,)``: int8 steps per step of the source's codes.
        addend: Same shape: int8 steps of the source's code 0.
        scale: Shape ``(out,)``, positive: weight units per int8 step.
        channel_axis: Which axis counts the ``out`` channels.

    Example:
        >>> grid = QuantizedTensor(np.array([[0, 1, 3]], np.uint8), bits=2,
        ...                        scale=np.float32(0.5), offset=np.float32(-0.5))
        >>> weight = SearchedWeight.of(grid, channel_axis=0).int8("w0")
        >>> weight.codes(), weight.codes() * weight.scale
        (array([[-63,   0, 126]], dtype=int8), array([[-0.5,  0. ,  1. ]], dtype=float32))
    """

    name: str
    source: Tensor
    multiplier: FloatArray | np.float32
    addend: FloatArray | np.float32
    scale: FloatArray
    channel_axis: int

    def codes(self) -> npt.NDArray[np.int8]:
        """``rint(code * multiplier + addend)``, each step in float32, ties to even; 0 for exact zeros.

        Of a float source: ``rint(weight / scale)``.
        """
        if not isinstance(self.source, QuantizedTensor):
            steps: FloatArray = np.asarray(self.source, np.float32) / self._along_channels(self.scale)
            return np.rint(steps).astype(np.int8)

        values = self.source.codes.astype(np.float32)
        values *= self._along_channels(self.multiplier)
        values += self._along_channels(self.addend)
        codes = np.rint(values, out=values).astype(np.int8)
        if self.source.support is not None:
            codes[~self.source.support] = 0

        return codes

    def _along_channels(self, parameter: FloatArray | np.float32) -> FloatArray:
        return np.asarray(
            along_axis(np.asarray(parameter, np.float32), self.channel_axis, len(self.source.shape))
        )


@dataclass(frozen=True, eq=False)
class SearchedWeight:
    """What a weight's int8 form does not owe to the activations: searched once, whatever their ranges.

    Attributes:
        source: Codes on a grid of the same channels, or float values.
        steps: Of each grid, shape as its scale; of float values shape ``(out,)``: int8 steps of least error.
        channel_axis: Which axis counts the ``out`` channels.

    Example:
        >>> weight = SearchedWeight.of(np.array([[2.54, 1.0], [0.0, 0.0]], np.float32), channel_axis=0)
        >>> weight.int8("w0").codes()
        array([[127,  50],
               [  0,   0]], dtype=int8)
    """

    source: Tensor
    steps: Wide
    channel_axis: int

    @classmethod
    def of(cls, source: Tensor, *, channel_axis: int, limit: int = INT8_LIMIT) -> "SearchedWeight":
        """Search the steps of a weight.

        Args:
            source: Codes on a grid, or float values.
            channel_axis: Which axis of the weight counts the output channels.
            limit: No code leaves ``-limit .. limit``: 127, or 63 where sums of two products must fit 16 bits.
        """
        if isinstance(source, QuantizedTensor) and _is_aligned(source, channel_axis):
            return cls(source, least_error_scales(source, *_grid_of(source), limit), channel_axis)

        values = np.asarray(dense_array(source), np.float32)
        others = tuple(axis for axis in range(values.ndim) if axis != channel_axis)
        largest = np.abs(values).max(axis=others, initial=0).astype(np.float64)
        return cls(values, largest / limit, channel_axis)

    def int8(self, name: str, least_scale: npt.NDArray[np.floating] | None = None) -> Int8Weight:
        """The weight in eight bits.

        Args:
            name: Of the int8 tensor.
            least_scale: Shape ``(out,)``: lower bounds of the scales, 0 for none. A bias in units of scale times
                input scale overflows 32 bits where weights are far smaller than it.
        """
        channels = self.source.shape[self.channel_axis]
        least = np.zeros(channels) if least_scale is None else least_scale.astype(np.float64)
        if isinstance(self.source, QuantizedTensor):
            return _from_grid(name, self.source, self.channel_axis, self.steps, least)

        scale = _positive(np.maximum(self.steps, least))
        return Int8Weight(name, self.source, np.float32(1), np.float32(0), scale, self.channel_axis)


def _is_aligned(source: QuantizedTensor, channel_axis: int) -> bool:
    """Whether the source's own parameters, if there is one for each channel, count the same channels."""
    per_tensor = np.ndim(source.scale) == 0 and source.channel_scale is None
    return per_tensor or source.channel_axis == channel_axis


def _grid_of(source: QuantizedTensor) -> tuple[Wide, Wide]:
    """Between the values of each grid, and the value of its code 0."""
    step = np.asarray(source.scale, np.float64)
    return step, np.zeros_like(step) if source.offset is None else np.asarray(source.offset, np.float64)


def _from_grid(name: str, source: QuantizedTensor, axis: int, chosen: Wide, least: Wide) -> Int8Weight:
    channels = source.shape[axis]
    step, start = _grid_of(source)
    factor = np.ones(channels) if source.channel_scale is None else source.channel_scale.astype(np.float64)
    natural = chosen * np.abs(factor)
    scale = _positive(np.maximum(natural, least))
    multiplier, addend = step / chosen, start / chosen
    smallest = np.maximum(least, np.finfo(np.float32).tiny)  # a channel of less runs on another scale
    if np.any(natural < smallest) or np.any(factor <= 0):
        multiplier, addend = multiplier * chosen * factor / scale, addend * chosen * factor / scale

    return Int8Weight(name, source, np.float32(multiplier), np.float32(addend), scale, axis)


def _positive(scale: Wide) -> FloatArray:
    """Float32 scales; channels without any weight get that of the largest one."""
    largest = scale.max(initial=0.0)
    rounded = scale.astype(np.float32)
    rounded[rounded < np.finfo(np.float32).tiny] = largest if largest > 0 else 1
    return rounded
