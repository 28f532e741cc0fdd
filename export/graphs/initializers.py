"""Weights stored in an ONNX model: taken out as arrays, and put in."""

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from modelpress.export.errors import InputError


def with_initializers(graph: onnx.ModelProto, arrays: dict[str, npt.NDArray[np.generic]]) -> onnx.ModelProto:
    """A copy of `graph` that holds these arrays as initializers, stored as raw data."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        for name, array in arrays.items()
    )
    return model


def initializers(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.generic]]:
    """Every initializer of a model as an array, in file order.

    Raises:
        InputError: Its data are damaged or lie in another file.
    """
    return {tensor.name: _array(tensor.name, tensor) for tensor in model.graph.initializer}


def constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.generic]]:
    """The value of every `Constant` node of the main graph, by output name.

    Raises:
        InputError: As for `initializers`.
    """
    return {
        node.output[0]: _array(node.output[0], attribute.t)
        for node in model.graph.node
        if node.op_type == "Constant" and len(node.output) == 1
        for attribute in node.attribute
        if attribute.name == "value"
    }


def _array(name: str, tensor: onnx.TensorProto) -> npt.NDArray[np.generic]:
    if tensor.data_location == TensorProto.EXTERNAL:
        raise InputError(
            f"{name}: its data lie in another file, which is not followed; store the model in one file"
        )
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:  # onnx raises whatever its parts raise on damaged data
        raise InputError(f"{name}: tensor data are damaged: {error}") from error
