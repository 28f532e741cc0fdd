"""ONNX's own checker on a model whose weights are not loaded."""

import numpy as np
import onnx
from onnx import helper

from modelpress.export.errors import ModelError
from modelpress.export.graphs.bounds import check_bounds
from modelpress.export.graphs.initializers import with_initializers
from modelpress.export.isolation.foreign import run_foreign
from modelpress.export.isolation.messages import Array, Facts
from modelpress.export.lazy_tensors import spec_of
from modelpress.export.quantized import QuantizedModel, dense_array

_MAX_ELEMENTS_IN_FULL = 1024  # shapes, axes and the like, whose values shape inference reads
_SEPARATE_WEIGHTS_IR = 4
_MEMORY_BYTES = 512 << 20  # of checker and shape inference; a graph of thousands of nodes takes some 10 MB


def check_graph(model: QuantizedModel) -> str | None:
    """Refuse a graph that breaks the rules of ONNX.

    The checker gets a stand-in: small tensors in full, a large one as an input of the same shape and type.

    Returns:
        What strict shape inference objects to, if anything: declared shapes that contradict each other are
        common in models that run, so that is for the caller to judge.

    Inside `foreign_work` its process does this.

    Raises:
        ModelError: The graph is no valid ONNX model.
    """
    check_bounds(model.graph)
    serialised = np.frombuffer(stand_in(model).SerializeToString(), np.uint8)
    found, _ = run_foreign(_check_job, {}, [serialised], memory_bytes=_MEMORY_BYTES)
    objection: str | None = found["objection"]
    return objection


def _check_job(facts: Facts, arrays: list[Array]) -> tuple[Facts, list[Array]]:
    """Check a serialised model.

    Raises:
        ModelError: It is no valid one.
    """
    model = onnx.load_from_string(arrays[0].tobytes())
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # checker and protobuf raise their own kinds
        raise ModelError(f"the graph is no valid ONNX model: {error}") from error

    # a second opinion only: models that run often declare shapes that contradict each other
    try:
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except Exception as error:  # as above
        return {"objection": str(error)}, []

    return {"objection": None}, []


def stand_in(model: QuantizedModel) -> onnx.ModelProto:
    """The model with inputs in the place of its large tensors.

    Raises:
        ModelError: It is of an old kind that asks for such inputs, and lacks one.
    """
    specs = {name: spec_of(model.tensors, name) for name in model.tensors}
    in_full = [name for name, spec in specs.items() if spec.size <= _MAX_ELEMENTS_IN_FULL]
    stand_in = with_initializers(model.graph, {name: dense_array(model.tensors[name]) for name in in_full})

    present = {value.name for value in model.graph.graph.input}
    for name in specs.keys() - present - set(in_full):
        if model.graph.ir_version < _SEPARATE_WEIGHTS_IR:
            raise ModelError(
                f"the graph is no valid ONNX model: {name} in initializer but not in graph input"
            )
        value = helper.make_tensor_value_info(name, specs[name].onnx_type, specs[name].shape)
        stand_in.graph.input.append(value)

    return stand_in
