"""One model rounded in three ways: to the nearest codes of two kinds of grids, and at a price."""

import numpy as np

from modelpress.export.grids import GridSpec, codes_of
from modelpress.export.least_error import least_error_grid
from modelpress.export.post_training.rounding import PostTraining, quantize_weight
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, Tensor
from modelpress.export.rate.layers import Layer, find_layers

MIN_MAX, LEAST_ERROR, PRICED = "min-max", "least-error", "priced"
PLAIN = (MIN_MAX, LEAST_ERROR)
_FLOAT16_MAX = float(np.finfo(np.float16).max)


def plainly_rounded(model: QuantizedModel, grid: str, bits: int, *, min_elements: int) -> QuantizedModel:
    """Every weight that can have a price, rounded to the nearest code; biases in float16, as a price leaves them.

    Args:
        model: In float, batch norm folded.
        grid: `MIN_MAX`: from minimum to maximum of each output channel, as `pack` lays it; `LEAST_ERROR`: around zero,
            of the least squared error for each output channel.
        bits: Code width.
        min_elements: Smaller weights stay as they are.
    """
    layers, _ = find_layers(model, min_elements=min_elements)
    tensors: dict[str, Tensor] = dict(model.tensors)
    for layer in layers:
        weight = np.asarray(tensors[layer.weight], np.float32)
        tensors[layer.weight] = (
            quantize_weight(weight, PostTraining(bits=bits, symmetric=False), channel_axis=layer.channel_axis)
            if grid == MIN_MAX
            else _least_error(layer, weight, bits)
        )
        if layer.bias is not None and layer.bias in tensors:
            tensors[layer.bias] = _half(np.asarray(tensors[layer.bias], np.float32))
    return QuantizedModel(model.graph, tensors)


def _least_error(layer: Layer, weight: np.ndarray, bits: int) -> QuantizedTensor:
    axis = layer.channel_axis
    rows = np.moveaxis(weight, axis, 0)
    spec = GridSpec(bits, symmetric=True, per_channel=True)
    grid = least_error_grid(rows, spec)
    grid = type(grid)(spec, np.maximum(_half(grid.scale), np.float32(6e-8)), None)
    codes = np.moveaxis(codes_of(rows, grid), 0, axis)
    return QuantizedTensor(
        np.ascontiguousarray(codes, np.int8), bits=bits, scale=grid.scale, channel_axis=axis
    )


def _half(values: np.ndarray) -> np.ndarray:
    if np.abs(values).max(initial=0) > _FLOAT16_MAX:
        return values
    return np.asarray(values, np.float16).astype(np.float32)


def zeros_in(model: QuantizedModel) -> float:
    """Share of the codes that are zero."""
    coded = [tensor for tensor in model.tensors.values() if isinstance(tensor, QuantizedTensor)]
    total = sum(tensor.codes.size for tensor in coded)
    return sum(tensor.codes.size - int(np.count_nonzero(tensor.nonzero)) for tensor in coded) / max(total, 1)
