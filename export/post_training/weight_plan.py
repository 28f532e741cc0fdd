"""What becomes of each tensor of an ONNX model, decided before any is quantized, and the nodes that this adds."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from modelpress.export.files.blocks import is_finite
from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.initializers import constants
from modelpress.export.graphs.parts import names_in
from modelpress.export.graphs.weights.finding import FLOAT_TYPES, Findings, find_weights
from modelpress.export.lazy_tensors import LazyTensors
from modelpress.export.post_training.known_grids import Rounding
from modelpress.export.tensor_spec import INTEGER_TYPES, TensorSpec

Array = npt.NDArray[np.generic]
_INTEGERS = "integers stay what they are"
_OTHER_TYPE = "its type has no codes"
_VECTOR = "a vector: a bias or a factor"
_NO_WEIGHT = "this operator is not known to have a weight there"
_SMALL = "fewer elements than --min-elements"
_ROUNDED = "the graph rounds it to a grid that codes of 8 bits do not hold"
_WIDENED = "bfloat16 that the graph widens has few bits already"
_FED = "a caller may feed another value"
_LOSSLESS = "--lossless"
_BY_CAST = frozenset(
    (TensorProto.DOUBLE, TensorProto.BFLOAT16)
)  # types that codes decode to by way of float32


@dataclass(frozen=True)
class Treatment:
    """What becomes of one tensor.

    Attributes:
        source: The tensor of the file it is made from.
        spec: What it is in the packed model.
        is_weight: Whether it is quantized.
        axis: Its channel axis; None: one scale for all of it.
        rounding: The grid that the graph rounds it to.
        operator: Who reads it.
        reason: Why it is not quantized; empty where it is.
    """

    source: str
    spec: TensorSpec
    is_weight: bool = False
    axis: int | None = None
    rounding: Rounding | None = None
    operator: str = ""
    reason: str = ""


@dataclass(frozen=True)
class WeightPlan:
    """What becomes of the tensors of a model.

    Attributes:
        graph: The model with the nodes that the treatments need.
        treatments: By name in the packed model, in file order.
        notes: What the user should know, in sentences.
    """

    graph: onnx.ModelProto
    treatments: dict[str, Treatment]
    notes: tuple[str, ...] = ()


def plan_weights(
    graph: onnx.ModelProto, tensors: LazyTensors, *, min_elements: int, per_channel: bool, lossless: bool
) -> WeightPlan:
    """Decide what becomes of each tensor.

    Args:
        graph: Without its tensors.
        tensors: Those of the file; each is looked at once, for what is not finite.
        min_elements: Smaller tensors are no weights.
        per_channel: One scale per output channel instead of one per tensor.
        lossless: Nothing is quantized.
    """
    index = GraphIndex.of_model(graph)
    shaped = tensors if lossless else _Reshaped(tensors, _shapes_in_use(index, tensors, min_elements))
    found = find_weights(graph, shaped)
    axes = found.channel_axes(shaped, min_elements=min_elements)
    decide = _Decision(index, shaped, found, axes if per_channel else dict.fromkeys(axes), lossless)
    treatments = {name: decide.treatment(name) for name in tensors}
    return _spelt_out(graph, tensors, treatments)


class _Reshaped(LazyTensors):
    """Tensors, some of them in another shape."""

    def __init__(self, tensors: LazyTensors, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._tensors, self._shapes = tensors, shapes

    def __len__(self) -> int:
        return len(self._tensors)

    def __iter__(self) -> Any:
        return iter(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def _make(self, name: str) -> Any:
        return np.asarray(self._tensors[name]).reshape(self.spec(name).shape)

    def _spec(self, name: str) -> TensorSpec:
        spec = self._tensors.spec(name)
        return replace(spec, shape=self._shapes.get(name, spec.shape))


def _shapes_in_use(index: GraphIndex, tensors: LazyTensors, min_elements: int) -> dict[str, tuple[int, ...]]:
    """Vectors that the graph only reads in one other shape are taken in that: a vector has no channels.

    The Reshape nodes stay, and change nothing any more.
    """
    small = constants_of(index)
    shapes = {}
    for name in tensors:
        spec = tensors.spec(name)
        readers = index.users(name)
        if len(spec.shape) != 1 or spec.size < min_elements or name in index.kept | index.overridable:
            continue
        if spec.onnx_type not in FLOAT_TYPES or not readers:
            continue

        targets = {_target_of(node, name, tensors, small) for node in readers}
        target = targets.pop()
        if not targets and target is not None and 0 not in target and len(target) > 1:
            known = int(np.prod([n for n in target if n != -1]))
            shape = tuple(spec.size // known if n == -1 else n for n in target)
            if int(np.prod(shape)) == spec.size:
                shapes[name] = shape

    return shapes


def constants_of(index: GraphIndex) -> dict[str, Array]:
    """The values of `Constant` nodes of a graph."""
    return constants(helper.make_model(helper.make_graph(index.nodes, "g", [], [])))


def _target_of(
    node: onnx.NodeProto, name: str, tensors: LazyTensors, small: Mapping[str, Array]
) -> tuple[int, ...] | None:
    if node.op_type != "Reshape" or len(node.input) != 2 or node.input[0] != name:
        return None
    target = node.input[1]
    value = np.asarray(tensors[target]) if target in tensors else small.get(target)
    return None if value is None else tuple(map(int, value.reshape(-1)))


@dataclass
class _Decision:
    """Everything that a decision rests on."""

    index: GraphIndex
    tensors: LazyTensors
    found: Findings
    axes: Mapping[str, int | None]
    lossless: bool
    small: dict[str, Array] = field(init=False)

    def __post_init__(self) -> None:
        self.small = constants_of(self.index)

    def treatment(self, name: str) -> Treatment:
        readers = sorted(self.found.readers.get(name, ())) or ["nothing"]
        plain = Treatment(name, self.tensors.spec(name), operator=", ".join(readers))
        if self.lossless:
            # a grid it lies on already loses nothing
            return replace(plain, axis=self.axes.get(name), reason=_LOSSLESS)

        if name not in self.axes:
            return replace(plain, reason=self._reason(name))
        reason = self._no_cast(name)
        if reason:
            return replace(plain, reason=reason)
        if name not in self.found.rounded:
            return replace(plain, is_weight=True, axis=self.axes[name])

        rounding = self._rounding(name)
        if rounding is None:
            return replace(plain, reason=_ROUNDED)
        return replace(plain, is_weight=True, rounding=rounding)

    def _reason(self, name: str) -> str:
        spec = self.tensors.spec(name)
        if spec.onnx_type not in FLOAT_TYPES:
            return _INTEGERS if spec.onnx_type in INTEGER_TYPES | {TensorProto.BOOL} else _OTHER_TYPE
        if name in self.found.axes:
            return _SMALL
        return _VECTOR if sum(n > 1 for n in spec.shape) < 2 else _NO_WEIGHT

    def _no_cast(self, name: str) -> str:
        """Why a weight whose codes need a Cast behind them is kept; empty where it is not."""
        kind = self.tensors.spec(name).onnx_type
        if kind in _BY_CAST and name in self.index.overridable | set(self.index.outputs):
            return _FED

        widened = any(node.op_type == "Cast" for node in self.index.users(name))
        return _WIDENED if kind == TensorProto.BFLOAT16 and widened else ""

    def _rounding(self, name: str) -> Rounding | None:
        """The grid of the QuantizeLinear nodes that alone read a weight, if they are of one kind."""
        readers = self.index.users(name)
        first = readers[0] if readers else None
        if first is None or name in self.index.kept:
            return None
        if any(node.op_type != "QuantizeLinear" or node.input[0] != name for node in readers):
            return None
        if any(
            node.input[1:] != first.input[1:] or node.attribute != first.attribute for node in readers[1:]
        ):
            return None

        values = [self._constant(part) for part in first.input[1:] if part]
        scale = values[0] if values else None
        zero = values[1] if len(values) > 1 else None
        grid = Rounding.of(first, scale, zero, n_axes=len(self.tensors.spec(name).shape))
        return None if grid is None or grid.zero_point.dtype not in (np.int8, np.uint8) else grid

    def _constant(self, name: str) -> Array | None:
        return np.asarray(self.tensors[name]) if name in self.tensors else self.small.get(name)


def _spelt_out(
    graph: onnx.ModelProto, tensors: LazyTensors, treatments: Mapping[str, Treatment]
) -> WeightPlan:
    """The graph with nodes in front for what an artifact does not hold as it is: codes of other floats."""
    taken = names_in(graph) | set(tensors)
    nodes: list[onnx.NodeProto] = []
    notes: list[str] = []
    made: dict[str, Treatment] = {}

    def unused(name: str) -> str:
        new = next(n for k in count() if (n := f"{name}_{k}" if k else name) not in taken)
        taken.add(new)
        return new

    for name, treatment in treatments.items():
        if treatment.spec.onnx_type in FLOAT_TYPES and not _is_finite(np.asarray(tensors[name])):
            made[name] = Treatment(
                name, tensors.spec(name), operator=treatment.operator, reason="holds NaN or infinity"
            )
            notes.append(f"{name}: holds NaN or infinity; stored bit for bit, not quantized")
        elif treatment.is_weight and treatment.spec.onnx_type in _BY_CAST:
            new = unused(f"{name}.float32")
            nodes.append(helper.make_node("Cast", [new], [name], to=treatment.spec.onnx_type))
            made[new] = replace(treatment, spec=replace(treatment.spec, onnx_type=TensorProto.FLOAT))
        else:
            made[name] = treatment

    return WeightPlan(_in_front(graph, nodes), made, tuple(notes))


def _is_finite(array: Array) -> bool:
    """Of bfloat16, which NumPy has not, the same numbers in float32 are looked at."""
    return is_finite(array if array.dtype.kind == "f" else array.astype(np.float32))


def _in_front(graph: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    if not nodes:
        return graph
    result = onnx.ModelProto()
    result.CopyFrom(graph)
    del result.graph.node[:]
    result.graph.node.extend([*nodes, *graph.graph.node])
    return result
