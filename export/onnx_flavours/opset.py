"""A graph in a newer version of the standard operators."""

import numpy as np
import onnx
from onnx import helper, version_converter

from modelpress.export.errors import ModelError
from modelpress.export.graphs.check import check_graph, stand_in
from modelpress.export.graphs.initializers import initializers
from modelpress.export.graphs.parts import opset_of
from modelpress.export.isolation.foreign import run_foreign
from modelpress.export.isolation.messages import Array, Facts
from modelpress.export.quantized import QuantizedModel

_IR_VERSIONS = helper.VERSION_TABLE  # releases of onnx: release, IR version, opset, ...


def with_opset(model: QuantizedModel, opset: int) -> QuantizedModel:
    """The same model in `opset`, or as it is where its own is as new.

    Weights are not touched: converters look at sizes and axes alone.

    Raises:
        ModelError: onnx cannot convert it.

    Example:
        >>> from modelpress.export.graphs.building import INPUT, GraphBuilder
        >>> builder = GraphBuilder("relu", (2,))
        >>> model = builder.finish(builder.relu(INPUT), n_outputs=2, metadata={})
        >>> newer = with_opset(model, 19)
        >>> opset_of(newer.graph), newer.graph.ir_version
        (19, 9)
    """
    own = opset_of(model.graph)
    if own >= opset:
        return model

    check_graph(model)
    inputs = {value.name for value in model.graph.graph.input}
    serialised = np.frombuffer(stand_in(model).SerializeToString(), np.uint8)
    _, (found,) = run_foreign(_convert_job, {"opset": opset}, [serialised])
    converted = onnx.load_from_string(found.tobytes())
    made = {name: a for name, a in initializers(converted).items() if name not in model.tensors}
    kept = [value for value in converted.graph.input if value.name in inputs]
    graph = onnx.ModelProto()
    graph.CopyFrom(converted)
    del graph.graph.initializer[:], graph.graph.input[:], graph.graph.value_info[:], graph.metadata_props[:]
    graph.graph.input.extend(kept)
    graph.graph.value_info.extend(model.graph.graph.value_info)  # the converter adds what it inferred
    graph.metadata_props.extend(model.graph.metadata_props)
    graph.ir_version = max(model.graph.ir_version, _ir_version_of(opset))
    return QuantizedModel(graph, {**model.tensors, **made})


def _convert_job(facts: Facts, arrays: list[Array]) -> tuple[Facts, list[Array]]:
    """Convert a serialised model.

    Raises:
        ModelError: It cannot be converted.
    """
    model = onnx.load_from_string(arrays[0].tobytes())
    try:
        converted = version_converter.convert_version(model, facts["opset"])
    except Exception as error:  # the converter raises whatever its C++ parts raise
        raise ModelError(
            f"opset {opset_of(model)} cannot be converted to {facts['opset']}: {error}"
        ) from error
    return {}, [np.frombuffer(converted.SerializeToString(), np.uint8)]


def _ir_version_of(opset: int) -> int:
    """The oldest that came with an opset."""
    return min((row[1] for row in _IR_VERSIONS if row[2] >= opset), default=0)
