"""How large the activations of a graph are, found by shape inference, before anything runs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx
from onnx import numpy_helper

from modelpress.export.errors import ModelpressError
from modelpress.export.graphs.bounds import check_bounds
from modelpress.export.graphs.index import GraphIndex, reads_of
from modelpress.export.graphs.parts import graphs_of
from modelpress.export.isolation.foreign import JobFailed, run_foreign
from modelpress.export.isolation.messages import Array, Facts

Shape = tuple[int, ...]
MOST_ACTIVATION_BYTES = 128 << 20  # of one call: runtimes, messages and measures each keep a copy for a while
_READ_IN_FULL = 1024  # elements: shapes, axes and the like, whose values shape inference reads
_MEMORY_BYTES = 512 << 20  # of shape inference, as for the checker
_FLOAT_BYTES = 4
_OF_SHAPES = frozenset(
    {"Add", "Cast", "Concat", "Div", "Gather", "Mul", "Slice", "Squeeze", "Sub", "Unsqueeze"}
)
_ROUNDS = 64  # of inference, one for each place where a shape depends on another's


@dataclass(frozen=True)
class ActivationSizes:
    """Bytes of what a graph computes from inputs of certain shapes.

    Attributes:
        by_name: Of every activation of the main graph, inputs included. One whose shape cannot be inferred counts as
            much as the largest of the others.
        peak: Of those that a runtime has to keep at one time.
    """

    by_name: Mapping[str, int] = field(default_factory=dict)
    peak: int = 0

    def observed(self, names: Sequence[str]) -> int:
        """Bytes where these are kept until the end as well."""
        return self.peak + sum(self.by_name.get(name, 0) for name in names)


def activation_sizes(
    model: onnx.ModelProto, inputs: Mapping[str, Shape], *, weights: Collection[str] = ()
) -> ActivationSizes:
    """Sizes of the activations for inputs of these shapes; inside `foreign_work` its process infers them.

    Args:
        model: Large initializers may be inputs instead, see `modelpress.export.graphs.check.stand_in`.
        inputs: Shapes by the names of inputs.
        weights: Inputs that are such initializers.

    Example:
        >>> from onnx import parser
        >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[N, 2] x) => (float[N, 2] y) '
        >>> sizes = activation_sizes(parser.parse_model(text + "{ h = Relu(x) y = Neg(h) }"), {"x": (100, 2)})
        >>> sizes.by_name, sizes.peak
        ({'x': 800, 'h': 800, 'y': 800}, 1600)
    """
    shapes = inferred_shapes(model, inputs)
    index = GraphIndex(model.graph)
    constant = {*index.stored, *weights}
    names: list[str] = []
    for node in index.nodes:
        if all(name in constant for name in reads_of(node)):
            constant.update(node.output)
        else:
            names += filter(None, node.output)

    known = {n: prod(shapes[n][0]) * shapes[n][1] for n in (*inputs, *names) if n in shapes}
    largest = max(known.values(), default=_FLOAT_BYTES * max(map(prod, inputs.values()), default=0))

    sizes = {name: known.get(name, largest) for name in dict.fromkeys((*inputs, *names))}
    return ActivationSizes(sizes, _peak(index, sizes))


def inferred_shapes(model: onnx.ModelProto, inputs: Mapping[str, Shape]) -> dict[str, tuple[Shape, int]]:
    """Shape, and bytes of an element, of every tensor of the main graph where these can be inferred.

    Args:
        model: As for `activation_sizes`.
        inputs: Shapes that take the place of the declared ones.
    """
    sketch = np.frombuffer(_sketch(model, inputs).SerializeToString(), np.uint8)
    try:
        check_bounds(model)
        found, _ = run_foreign(_inference_job, {}, [sketch], memory_bytes=_MEMORY_BYTES)
    except (ModelpressError, JobFailed):  # nobody needs it: what cannot be inferred is not known
        return {}
    return {name: (tuple(shape), width) for name, shape, width in found["shapes"]}


def _sketch(model: onnx.ModelProto, inputs: Mapping[str, Shape]) -> onnx.ModelProto:
    """The model without the values of its large tensors, and with these shapes of inputs."""
    sketch = onnx.ModelProto(ir_version=max(model.ir_version, 4))  # where initializers need not be inputs
    sketch.opset_import.extend(model.opset_import)
    declared = {entry.domain for entry in model.opset_import}
    used = {node.domain for _, graph in graphs_of(model) for node in graph.node}
    sketch.opset_import.extend(onnx.helper.make_opsetid(domain, 1) for domain in sorted(used - declared))
    sketch.functions.extend(model.functions)
    sketch.graph.name = model.graph.name
    sketch.graph.node.extend(model.graph.node)
    sketch.graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in model.graph.output)

    stored = set()
    for tensor in model.graph.initializer:
        stored.add(tensor.name)
        if prod(tensor.dims) <= _READ_IN_FULL:
            sketch.graph.initializer.append(tensor)
        else:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            sketch.graph.input.append(value)

    for value in model.graph.input:
        if value.name not in stored:
            given = sketch.graph.input.add()
            given.CopyFrom(value)
            if value.name in inputs:
                given.type.tensor_type.shape.Clear()
                for length in inputs[value.name]:
                    given.type.tensor_type.shape.dim.add(dim_value=length)
    return sketch


def _inference_job(facts: Facts, arrays: list[Array]) -> tuple[Facts, list[Array]]:
    model = onnx.load_from_string(arrays[0].tobytes())
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    for _ in range(_ROUNDS):  # ONNX's own inference does not follow what is computed from shapes to a Reshape
        if not _shapes_made_constant(model, graph):
            break
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found = []
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = _known_shape(value)
        if shape is not None:
            found.append([value.name, list(shape), _width(value.type.tensor_type.elem_type)])
    return {"shapes": found}, []


def _known_shape(value: onnx.ValueInfoProto) -> Shape | None:
    kind = value.type.tensor_type
    dims = kind.shape.dim
    known = kind.HasField("shape") and all(d.HasField("dim_value") and d.dim_value >= 0 for d in dims)
    return tuple(dim.dim_value for dim in dims) if known else None


def _shapes_made_constant(model: onnx.ModelProto, inferred: onnx.GraphProto) -> bool:
    """Put constants in the place of nodes that compute from shapes, where `inferred` knows these."""
    inferable = ((value.name, _known_shape(value)) for value in (*inferred.input, *inferred.value_info))
    known = {name: shape for name, shape in inferable if shape is not None}
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    changed = False
    for node in model.graph.node:
        if node.op_type == "Constant":
            values.update(
                (node.output[0], numpy_helper.to_array(a.t)) for a in node.attribute if a.HasField("t")
            )
            continue
        value = _value_of(node, known, values, opsets)
        if value is not None and value.size <= _READ_IN_FULL:
            values[node.output[0]] = value
            tensor = numpy_helper.from_array(value)
            node.CopyFrom(onnx.helper.make_node("Constant", [], node.output, value=tensor))
            changed = True
    return changed


def _value_of(
    node: onnx.NodeProto, shapes: Mapping[str, Shape], values: Mapping[str, Array], opsets: dict[str, int]
) -> Array | None:
    """What a node computes from shapes; None where that is not known."""
    if node.op_type == "Shape" and node.input[0] in shapes:
        start, end = (next((a.i for a in node.attribute if a.name == n), None) for n in ("start", "end"))
        return np.array(shapes[node.input[0]][start or 0 : end], np.int64)
    if node.op_type not in _OF_SHAPES or not all(name in values for name in reads_of(node)):
        return None

    from onnx.reference import ReferenceEvaluator  # seldom needed, and slow to import

    try:
        (found,) = ReferenceEvaluator(node, opsets=opsets).run(None, {n: values[n] for n in reads_of(node)})
    except Exception:  # of a damaged node, of many kinds; the shapes that hang on it are not known then
        return None
    return np.asarray(found)


def _width(elem_type: int) -> int:
    try:
        return int(onnx.helper.tensor_dtype_to_np_dtype(elem_type).itemsize)
    except (KeyError, TypeError):
        return _FLOAT_BYTES


def _peak(index: GraphIndex, sizes: Mapping[str, int]) -> int:
    """The most bytes alive at once, where a runtime computes in graph order and drops what nobody reads any more."""
    last = {name: k for k, node in enumerate(index.nodes) for name in reads_of(node)}
    kept = set(index.outputs)
    alive = sum(size for name, size in sizes.items() if name not in index.producers)
    peak = alive
    for k, node in enumerate(index.nodes):
        alive += sum(sizes.get(name, 0) for name in node.output)
        peak = max(peak, alive)
        done = {*reads_of(node), *node.output} - kept
        alive -= sum(sizes.get(name, 0) for name in done if last.get(name, k) == k)
    return peak


def batch_within(n_bytes: int, batch: int, *, most: int) -> int:
    """How many inputs at a time, where so many take `n_bytes`: at most `most`, at least one.

    Example:
        >>> batch_within(64 << 20, 1, most=32), batch_within(1 << 20, 1, most=32), batch_within(1 << 40, 1, most=8)
        (2, 32, 1)
    """
    return max(1, min(most, MOST_ACTIVATION_BYTES * batch // max(n_bytes, 1)))
