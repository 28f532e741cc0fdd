"""The weights a model computes with, whatever form the file keeps them in."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from modelpress.export.errors import InputError
from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.initializers import constants, initializers
from modelpress.export.graphs.operators import WeightInput, attribute_of, layer_weights, weight_inputs
from modelpress.export.isolation.foreign import run_foreign
from modelpress.export.isolation.messages import Array, Facts
from modelpress.export.runtime import SessionSettings, open_session

_AT_ONCE = 1 << 28  # bytes of stored tensors evaluated in one session


@dataclass(frozen=True)
class _QuantizedWeight:
    """Names of what an operator on integers takes as its weight."""

    codes: str
    scale: str
    zero_point: str
    node: onnx.NodeProto
    place: WeightInput

    def dequantized(self, tensors: dict[str, Array]) -> Array:
        """The weight in float32."""
        codes, scale, zero_point = (tensors[name] for name in (self.codes, self.scale, self.zero_point))
        axis = self.place.channel_axis(self.node, n_axes=codes.ndim)
        step = _along(scale, axis, codes.ndim).astype(np.float32)
        offset = _along(zero_point, axis, codes.ndim).astype(np.float32)
        return (codes.astype(np.float32) - offset) * step


def running_weights(model: onnx.ModelProto) -> dict[str, Array]:
    """Constant weights of all convolutions and linear layers as they run, by name of the input, in graph order.

    A weight may be an initializer, the value of a `Constant`, or computed from those by other nodes: it is
    dequantized, unpacked or expanded as the runtime would do it. Weights of operators on integers are dequantized.

    Raises:
        InputError: Data are damaged, or neither ONNX Runtime nor the reference evaluates the nodes of a weight.

    Example:
        >>> codes = onnx.numpy_helper.from_array(np.array([[3, -1]], np.int8), "codes")
        >>> scale = onnx.numpy_helper.from_array(np.float32(0.5), "scale")
        >>> info = onnx.helper.make_tensor_value_info
        >>> graph = onnx.helper.make_graph(
        ...     [onnx.helper.make_node("DequantizeLinear", ["codes", "scale"], ["w"]),
        ...      onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        ...     "g", [info("x", 1, ["N", 1])], [info("y", 1, ["N", 2])], [codes, scale])
        >>> opset = onnx.helper.make_opsetid("", 13)
        >>> running_weights(onnx.helper.make_model(graph, ir_version=8, opset_imports=[opset]))
        {'w': array([[ 1.5, -0.5]], dtype=float32)}
    """
    index = GraphIndex(model.graph)
    known = index.constants()

    names: list[str] = []
    on_integers: dict[str, _QuantizedWeight] = {}
    for node in _work(index, known):
        names += layer_weights(node)
        for found in _weights_on_integers(node):
            if known.issuperset((found.codes, found.scale, found.zero_point)):
                names.append(found.codes)
                on_integers[found.codes] = found

    parameters = [name for found in on_integers.values() for name in (found.scale, found.zero_point)]
    tensors = constant_tensors(model, [name for name in (*names, *parameters) if name in known], index=index)

    return {
        name: on_integers[name].dequantized(tensors) if name in on_integers else tensors[name]
        for name in dict.fromkeys(names)
        if name in known
    }


def _weights_on_integers(node: onnx.NodeProto) -> Iterator[_QuantizedWeight]:
    """The weight of an operator on integers."""
    for place in weight_inputs(node):
        if place.scale is not None and place.scale + 1 < len(node.input):
            scale, zero_point = node.input[place.scale : place.scale + 2]
            yield _QuantizedWeight(node.input[place.place], scale, zero_point, node, place)


def weight_steps(model: onnx.ModelProto) -> dict[str, Array]:
    """Width of one integer step of every weight that a DequantizeLinear makes, by name of the weight.

    Returns:
        Positive scales, of shapes that broadcast with the weights.

    Raises:
        InputError: As for `running_weights`.
    """
    index = GraphIndex(model.graph)
    known = index.constants()
    makers = {
        name: maker
        for node in _work(index, known)
        for name in layer_weights(node)
        if name in known
        if (maker := index.producer(name)) is not None and maker.op_type == "DequantizeLinear"
    }
    scales = constant_tensors(model, [maker.input[1] for maker in makers.values()], index=index)
    ranks = {name: weight.ndim for name, weight in constant_tensors(model, makers, index=index).items()}

    return {
        name: _along(scales[maker.input[1]], attribute_of(maker, "axis", 1), ranks[name])
        for name, maker in makers.items()
    }


def _along(scale: Array, axis: int, n_axes: int) -> Array:
    """A scale per tensor or per channel in a shape that broadcasts; blocks of channels are left as they are."""
    if scale.ndim != 1 or scale.size < 2:
        return scale
    shape = [1] * n_axes
    shape[axis] = scale.size
    return scale.reshape(shape)


def constant_tensors(
    model: onnx.ModelProto, names: Iterable[str], *, index: GraphIndex | None = None
) -> dict[str, Array]:
    """Values of tensors that are stored in a model or computed from stored ones only, in the order asked for.

    Raises:
        InputError: As for `running_weights`.
    """
    wanted = list(dict.fromkeys(names))
    stored = {**initializers(model), **constants(model)}
    index = index or GraphIndex(model.graph)
    computed: dict[str, Array] = {}
    for group in _groups(index, [name for name in wanted if name not in stored]):
        computed |= _evaluate(_part_of(model, index, group), group)
    return {name: stored[name] if name in stored else computed[name] for name in wanted}


def _work(index: GraphIndex, known: set[str]) -> Iterator[onnx.NodeProto]:
    """The nodes that work on activations; those that decode weights may hold matrix products too."""
    for node in index.nodes:
        if not all(name in known for name in node.output if name):
            yield node


def _groups(index: GraphIndex, names: list[str]) -> list[list[str]]:
    """Names in groups whose stored tensors fit into one session."""
    groups: list[list[str]] = []
    size = 0
    for name in names:
        needed = sum(index.stored[start].ByteSize() for start in index.ancestors([name])[1])
        if not groups or size + needed > _AT_ONCE:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += needed

    return groups


def _part_of(model: onnx.ModelProto, index: GraphIndex, names: list[str]) -> onnx.ModelProto:
    """The part of a model that computes these tensors, as a model without inputs."""
    nodes, stored = index.ancestors(names)
    graph = helper.make_graph(
        [index.nodes[k] for k in nodes],
        "weights",
        [],
        [onnx.ValueInfoProto(name=name) for name in names],  # types are inferred by whoever runs it
        [index.stored[name] for name in stored],
    )

    return helper.make_model(
        graph,
        ir_version=model.ir_version,
        opset_imports=list(model.opset_import),
        functions=list(model.functions),
    )


def _evaluate(model: onnx.ModelProto, names: list[str]) -> dict[str, Array]:
    """Run a model without inputs: in ONNX Runtime as it stands, else by the definition of its operators."""
    serialised = np.frombuffer(model.SerializeToString(), np.uint8)
    _, values = run_foreign(_evaluate_job, {"names": names}, [serialised])
    return dict(zip(names, values, strict=True))


def _evaluate_job(facts: Facts, arrays: list[Array]) -> tuple[Facts, list[Array]]:
    names, serialised = facts["names"], arrays[0].tobytes()
    settings = SessionSettings(optimised=False, arena=False)  # the memory goes back at once
    try:
        values = open_session(serialised, settings=settings).run(names, {})
    except Exception as error:  # onnxruntime's exception classes share no public base
        values = _evaluate_by_definition(onnx.load_from_string(serialised), names, error)
    return {}, [np.asarray(value) for value in values]


def _evaluate_by_definition(model: onnx.ModelProto, names: list[str], first: Exception) -> list[Array]:
    try:
        values = list(ReferenceEvaluator(model).run(names, {}))
    except Exception as error:  # it raises whatever its parts raise
        raise InputError(
            f"{names[0]}: the nodes that compute this weight cannot be evaluated; "
            f"ONNX Runtime says: {first}; the reference: {error}"
        ) from error
    return values
