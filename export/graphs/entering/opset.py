"""Old models in a newer opset, by ONNX's own converter, without loading their weights into it."""

import numpy as np
import onnx
from onnx import helper, version_converter

from modelpress.export.errors import ModelError
from modelpress.export.graphs.initializers import initializers, with_initializers
from modelpress.export.graphs.parts import opset_of
from modelpress.export.isolation.foreign import JobFailed, run_foreign
from modelpress.export.isolation.messages import Array, Facts
from modelpress.export.lazy_tensors import spec_of
from modelpress.export.quantized import QuantizedModel, Tensor, dense_array

_MAX_ELEMENTS_IN_FULL = 1024  # shapes, axes and the like, whose values the converter reads


def in_opset(model: QuantizedModel, opset: int) -> QuantizedModel:
    """A model in an opset at least that new; itself where it is.

    Large tensors are inputs while the graph is converted, so that none of them is copied.

    Raises:
        ModelError: The converter cannot do it.
    """
    before = opset_of(model.graph)
    if before >= opset:
        return model

    if model.graph.functions:  # the converter would drop them
        raise ModelError(
            f"the model has opset {before}, needs {opset} here, and its local functions cannot be converted: inline "
            "them with onnx.inliner.inline_local_functions, or take flavour float, which works with any opset"
        )

    fed = {value.name for value in model.graph.graph.input}
    specs = {name: spec_of(model.tensors, name) for name in model.tensors}
    large = [name for name, spec in specs.items() if spec.size > _MAX_ELEMENTS_IN_FULL]
    small = {name: dense_array(model.tensors[name]) for name in specs if name not in large}
    stand_in = with_initializers(model.graph, small)
    stand_in.graph.input.extend(
        helper.make_tensor_value_info(name, specs[name].onnx_type, specs[name].shape)
        for name in large
        if name not in fed
    )

    serialised = np.frombuffer(stand_in.SerializeToString(), np.uint8)
    try:
        _, (found,) = run_foreign(_convert_job, {"opset": opset}, [serialised])
    except JobFailed as error:
        raise ModelError(
            f"the model has opset {before}, needs {opset} here, and cannot be converted: {error}; take flavour float, "
            "which works with any opset"
        ) from error

    return _taken_apart(onnx.load_from_string(found.tobytes()), model, large, fed)


def _convert_job(facts: Facts, arrays: list[Array]) -> tuple[Facts, list[Array]]:
    """Convert a serialised model; the converter raises its own kinds of errors."""
    converted = version_converter.convert_version(onnx.load_from_string(arrays[0].tobytes()), facts["opset"])
    return {}, [np.frombuffer(converted.SerializeToString(), np.uint8)]


def _taken_apart(
    converted: onnx.ModelProto, model: QuantizedModel, large: list[str], fed: set[str]
) -> QuantizedModel:
    """The converted graph and its tensors: the old ones by name, and those that the converter made."""
    stored = initializers(converted)
    tensors: dict[str, Tensor] = {
        name: model.tensors[name] for name in model.tensors if name in large or name in stored
    }
    tensors |= {name: array for name, array in stored.items() if name not in tensors}

    graph = onnx.ModelProto()
    graph.CopyFrom(converted)
    del graph.graph.initializer[:], graph.graph.input[:]
    graph.graph.input.extend(value for value in converted.graph.input if value.name in fed)
    graph.metadata_props.extend(
        entry for entry in model.graph.metadata_props if entry not in graph.metadata_props
    )
    return QuantizedModel(graph, tensors)
