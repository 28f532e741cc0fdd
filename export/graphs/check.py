"""ONNX's own checker on a model whose weights are not loaded."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from modelpress.export.errors import ModelError
from modelpress.export.graphs.bounds import check_bounds
from modelpress.export.graphs.initializers import with_initializers
from modelpress.export.graphs.parts import graphs_of
from modelpress.export.isolation.foreign import run_foreign
from modelpress.export.isolation.messages import Array, Facts
from modelpress.export.lazy_tensors import spec_of
from modelpress.export.quantized import QuantizedModel, dense_array

_MAX_ELEMENTS_IN_FULL = 1024  # shapes, axes and the like, whose values shape inference reads
_SEPARATE_WEIGHTS_IR = 4
_KNOWN_TO_RUNTIME = frozenset(
    {"com.microsoft", "com.microsoft.nchwc", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training"}
)
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
    checked = stand_in(model)
    checked.opset_import.extend(_undeclared_domains(checked))
    serialised = np.frombuffer(checked.SerializeToString(), np.uint8)
    found, _ = run_foreign(_check_job, {}, [serialised], memory_bytes=_MEMORY_BYTES)
    objection: str | None = found["objection"]
    return objection


def _check_job(facts: Facts, arrays: list[Array]) -> tuple[Facts, list[Array]]:
    """Check a serialised model.

    Raises:
        ModelError: It is no valid one.
    """
    model = onnx.load_from_string(arrays[0].tobytes())
    check_as_runtimes_do(model)

    # a second opinion only: models that run often declare shapes that contradict each other
    try:
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except Exception as error:  # as above
        return {"objection": str(error)}, []

    return {"objection": None}, []


def check_as_runtimes_do(model: onnx.ModelProto) -> None:
    """ONNX's checker, less what ONNX Runtime does without.

    A shape or type that an input or output of the graph does not declare is inferred there, and the domains of its own
    operators need not be named.

    Raises:
        ModelError: The checker objects to anything else.
    """
    try:
        onnx.checker.check_model(_completed(model))
    except Exception as error:  # checker and protobuf raise their own kinds
        raise ModelError(f"the graph is no valid ONNX model: {error}") from error


def _completed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself where nothing is left out: it may hold gigabytes."""
    domains = _undeclared_domains(model)
    if not domains and all(map(_is_declared, (*model.graph.input, *model.graph.output))):
        return model

    complete = onnx.ModelProto()
    complete.CopyFrom(model)
    complete.opset_import.extend(domains)
    for value in (*complete.graph.input, *complete.graph.output):
        if not _is_declared(value):
            kind = value.type.tensor_type
            kind.elem_type = kind.elem_type or TensorProto.FLOAT
            kind.shape.SetInParent()

    return complete


def _undeclared_domains(model: onnx.ModelProto) -> list[onnx.OperatorSetIdProto]:
    """Those of ONNX Runtime's own operators that a model uses without naming them."""
    declared = {entry.domain for entry in model.opset_import}
    used = {node.domain for _, part in graphs_of(model) for node in part.node}
    return [helper.make_opsetid(domain, 1) for domain in sorted(used & _KNOWN_TO_RUNTIME - declared)]


def _is_declared(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.WhichOneof("value")
    return kind is not None and (kind != "tensor_type" or value.type.tensor_type.HasField("shape"))


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


def described(model: QuantizedModel) -> onnx.ModelProto:
    """The graph with its tensors named, typed and shaped, but without values: enough to see what is fed with what."""
    sketch = onnx.ModelProto()
    sketch.CopyFrom(model.graph)
    for name in model.tensors:
        spec = spec_of(model.tensors, name)
        sketch.graph.initializer.add(name=name, data_type=spec.onnx_type, dims=spec.shape)
    return sketch
