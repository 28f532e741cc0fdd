"""The shape of every activation, for one input at a time."""

import onnx
from onnx import shape_inference

from modelpress.export.errors import ModelError
from modelpress.export.graphs.initializers import with_initializers
from modelpress.export.quantized import QuantizedModel, dense_array

Shape = tuple[int, ...]


def single_shapes(model: QuantizedModel) -> dict[str, Shape]:
    """By name, the first axis being 1.

    Raises:
        ModelError: An axis of an input other than the first is not fixed, or a shape does not follow.
    """
    stored = with_initializers(model.graph, {name: dense_array(t) for name, t in model.tensors.items()})
    graph = stored.graph
    kept = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in kept:
            _fix_batch(value)

    del graph.value_info[:]  # they may speak of other batches
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")

    try:
        inferred = shape_inference.infer_shapes(stored, strict_mode=True, data_prop=True).graph
    except Exception as error:  # onnx raises whatever its parts raise
        first = str(error).strip().partition("\n")[0]
        raise ModelError(f"the shapes of activations do not follow from the graph: {first}") from error
    found = (*inferred.input, *inferred.value_info, *inferred.output)
    return {value.name: _shape_of(value) for value in found if _is_fixed(value)}


def _fix_batch(value: onnx.ValueInfoProto) -> None:
    axes = value.type.tensor_type.shape.dim
    open_axes = [k for k, axis in enumerate(axes) if k and not axis.dim_value > 0]
    if not axes or open_axes:
        shown = [axis.dim_value or axis.dim_param or "?" for axis in axes]
        raise ModelError(
            f"input {value.name} has shape ({', '.join(map(str, shown))}); firmware needs every axis but the first "
            "fixed: export the network with fixed sizes"
        )
    axes[0].Clear()
    axes[0].dim_value = 1


def _is_fixed(value: onnx.ValueInfoProto) -> bool:
    of_tensor = value.type.tensor_type
    return of_tensor.HasField("shape") and all(axis.dim_value > 0 for axis in of_tensor.shape.dim)


def _shape_of(value: onnx.ValueInfoProto) -> Shape:
    return tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
