"""Old models in a newer opset, by ONNX's own converter, without loading their weights into it."""

import numpy as np
import onnx
from onnx import helper, version_converter

from modelpress.export.errors import ModelError
from modelpress.export.graphs.check import stand_in
from modelpress.export.graphs.initializers import initializers
from modelpress.export.graphs.parts import opset_of
from modelpress.export.isolation.foreign import JobFailed, run_foreign
from modelpress.export.isolation.messages import Array, Facts
from modelpress.export.quantized import QuantizedModel


def in_opset(model: QuantizedModel, opset: int) -> QuantizedModel:
    """A model in an opset at least that new; itself where it is.

    Large tensors are inputs while the graph is converted, so that none of them is copied.

    Raises:
        ModelError: The converter cannot do it.

    Example:
        >>> from onnx import parser
        >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) { y = Relu(x) }'
        >>> newer = in_opset(QuantizedModel(parser.parse_model(text), {}), 19)
        >>> opset_of(newer.graph), newer.graph.ir_version
        (19, 9)
    """
    before = opset_of(model.graph)
    if before >= opset:
        return model

    if model.graph.functions:  # the converter would drop them
        raise ModelError(
            f"the model has opset {before}, needs {opset} here, and its local functions cannot be converted: inline "
            "them with onnx.inliner.inline_local_functions, or take flavour float in the opset that the model has"
        )

    serialised = np.frombuffer(stand_in(model).SerializeToString(), np.uint8)
    try:
        _, (found,) = run_foreign(_convert_job, {"opset": opset}, [serialised])
    except JobFailed as error:
        raise ModelError(
            f"the model has opset {before}, needs {opset} here, and cannot be converted: {error}; take flavour float "
            "in the opset that the model has"
        ) from error

    converted = onnx.load_from_string(found.tobytes())
    converted.ir_version = max(model.graph.ir_version, _ir_version_of(opset))
    return _taken_apart(converted, model)


def _convert_job(facts: Facts, arrays: list[Array]) -> tuple[Facts, list[Array]]:
    """Convert a serialised model; the converter raises its own kinds of errors."""
    converted = version_converter.convert_version(onnx.load_from_string(arrays[0].tobytes()), facts["opset"])
    return {}, [np.frombuffer(converted.SerializeToString(), np.uint8)]


def _taken_apart(converted: onnx.ModelProto, model: QuantizedModel) -> QuantizedModel:
    """The converted graph and its tensors: the old ones by name, and those that the converter made."""
    stored = initializers(converted)
    inputs = {value.name for value in model.graph.graph.input}
    held = {*stored, *(value.name for value in converted.graph.input)}
    tensors = {name: model.tensors[name] for name in model.tensors if name in held}
    tensors |= {name: array for name, array in stored.items() if name not in tensors}

    kept = [value for value in converted.graph.input if value.name in inputs]
    del converted.graph.initializer[:], converted.graph.input[:], converted.graph.value_info[:]
    converted.graph.input.extend(kept)
    converted.graph.value_info.extend(model.graph.graph.value_info)  # the converter adds what it inferred
    del converted.metadata_props[:]
    converted.metadata_props.extend(model.graph.metadata_props)
    return QuantizedModel(converted, tensors)


def _ir_version_of(opset: int) -> int:
    """The oldest that came with an opset; rows of the table are releases of onnx: name, IR version, opset, ..."""
    return min((row[1] for row in helper.VERSION_TABLE if row[2] >= opset), default=0)
