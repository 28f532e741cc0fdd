"""The graph that ONNX Runtime really runs, and which of its nodes does the work of which node in the file."""

import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from modelpress.export.errors import InputError
from modelpress.export.graphs.index import GraphIndex
from modelpress.export.runtime import SessionSettings, open_session

FOLDED, REMOVED = "folded", "removed"

_LABEL = re.compile(r"emitted(\d+)_")
_BLOCKED = re.compile(r"(.*)_nchwc(?:_token_\d+)?")  # the runtime names these after their output
_QUANTIZING = frozenset({"QuantizeLinear", "DequantizeLinear"})
# hand integers on as they get them
_ORDERING = frozenset(
    {"Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Relu", "Reshape"}
    | {"Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
_INTEGER_OPERATOR = re.compile(r"QLinear|QGemm|.*Integer|QAttention|DynamicQuantizeMatMul")
_FLOAT_RESULT = frozenset({"MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QAttention"})


@dataclass(frozen=True)
class Fate:
    """What became of a node.

    Attributes:
        runs_as: Operator that does its work, without ``com.microsoft``; or `FOLDED` or `REMOVED`.
        place: Number of that node in the optimised graph; None where there is none.
        integer: It computes on integers.
    """

    runs_as: str
    place: int | None = None
    integer: bool = False


@dataclass
class OptimisedGraph:
    """The main graph of a file, beside what ONNX Runtime made of it.

    Attributes:
        model: The file.
        emitted: Its graph; nodes are numbered in its order.
        optimised: The graph that runs.
        runs: Number of the optimised node by number of the emitted one, where one names the other.
    """

    model: onnx.ModelProto
    emitted: GraphIndex
    optimised: GraphIndex
    runs: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._integers = _integer_tensors(self.optimised)
        self._constant = self.emitted.constants(overridable=False)
        self._match()

    def fate(self, number: int) -> Fate:
        """What became of an emitted node: it, the node it was fused into, or nothing."""
        if number in self.runs:
            return self._fate_as(self.runs[number])

        node = self.emitted.nodes[number]
        if node.output and all(name in self._constant for name in node.output if name):
            return Fate(FOLDED)

        host = self._twin(number)
        host = host if host is not None else self._host(number)
        return Fate(REMOVED) if host is None else self._fate_as(self.runs[host])

    def is_fused(self, number: int) -> bool:
        """Whether an emitted node runs as a part of another one, or not at all."""
        return number not in self.runs

    def _fate_as(self, place: int) -> Fate:
        node = self.optimised.nodes[place]
        on_integers = bool(_INTEGER_OPERATOR.match(node.op_type))
        moved = node.op_type in _ORDERING and node.input[0] in self._integers
        return Fate(operator_name(node), place, on_integers or moved)

    def _match(self) -> None:
        """By the names given before; where the runtime dropped them, by names of outputs."""
        unnamed = []
        for place, node in enumerate(self.optimised.nodes):
            label = _LABEL.search(node.name)
            if label:
                self.runs.setdefault(int(label[1]), place)
            else:
                unnamed.append(place)

        # a blocked convolution is named after what it replaced; other new nodes keep their outputs' names
        for place in unnamed:
            node = self.optimised.nodes[place]
            blocked = _BLOCKED.fullmatch(node.name)
            for name in (*([blocked[1]] if blocked else []), *node.output):
                if name in self.emitted.producers and not node.op_type.startswith("Reorder"):
                    self.runs.setdefault(self._origin(self.emitted.producers[name], node.op_type), place)
                    break

    def _origin(self, number: int, op_type: str) -> int:
        """The node whose operator this is, among those fused up to this output."""
        pending = [number]
        for candidate in pending:
            if self.emitted.nodes[candidate].op_type in op_type:
                return candidate
            pending += [p for p in self._upstream(candidate) if p not in self.runs and p not in pending]
        return number

    def _upstream(self, number: int) -> Iterator[int]:
        for name in self.emitted.nodes[number].input:
            if name in self.emitted.producers and name not in self._constant:
                yield self.emitted.producers[name]

    def _downstream(self, number: int) -> Iterator[int]:
        for name in self.emitted.nodes[number].output:
            yield from self.emitted.consumers.get(name, ())

    def _twin(self, number: int) -> int | None:
        """A node that does the very same and was kept in its place."""
        mine = self.emitted.nodes[number]
        work = (mine.op_type, mine.input, mine.attribute)
        for name in mine.input:
            for other in self.emitted.consumers.get(name, ()):
                theirs = self.emitted.nodes[other]
                if other in self.runs and (theirs.op_type, theirs.input, theirs.attribute) == work:
                    return other

        return None

    def _host(self, number: int) -> int | None:
        """The node that a fused one became a part of: the nearest before it, else the nearest after it."""
        op_type = self.emitted.nodes[number].op_type
        if op_type in _ORDERING and op_type not in ("Pad", "Relu"):
            return None
        before, after = (self._nearest(number, step) for step in (self._upstream, self._downstream))
        return after if op_type == "Pad" or before is None else before

    def _nearest(self, number: int, step: Callable[[int], Iterator[int]]) -> int | None:
        """The first node met that computes, through those that are gone."""
        pending = list(step(number))
        for candidate in pending:
            if candidate not in self.runs:
                pending += [n for n in step(candidate) if n not in pending]
            elif self.emitted.nodes[candidate].op_type not in _QUANTIZING | _ORDERING:
                return candidate
        return None


def optimised_graph(serialised: bytes, *, name: str) -> OptimisedGraph:
    """Let ONNX Runtime load a model with all optimisations, and read back the graph it would run on this machine.

    Args:
        serialised: The bytes of an ONNX file.
        name: What messages call it.

    Raises:
        InputError: It is no ONNX model, or ONNX Runtime does not load it.
    """
    model = onnx.ModelProto()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # protobuf warns before it raises
            model.ParseFromString(serialised)
    except DecodeError as error:
        raise InputError(f"{name}: is no ONNX model") from error

    labelled = onnx.ModelProto()
    labelled.CopyFrom(model)
    for k, node in enumerate(labelled.graph.node):
        node.name = f"emitted{k}_"  # the runtime derives the names of fused nodes from these

    optimised = _optimise(bytes(labelled.SerializeToString()), name=name)
    return OptimisedGraph(model, GraphIndex(model.graph), GraphIndex(optimised.graph))


def _optimise(serialised: bytes, *, name: str) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        try:
            open_session(serialised, settings=SessionSettings(threads=1, save_as=str(path)))
        except InputError as error:
            raise InputError(f"{name}: {error}{_hint(error)}") from error
        return onnx.load(path)


def _hint(error: Exception) -> str:
    """The way out, where the message alone does not tell it."""
    text = str(error)  # the only thing that tells these cases apart: all are of one class

    if "Unrecognized attribute: axis" in text and "Linear" in text:
        return "; scales per channel need opset 13 or newer"
    if "must be a scalar" in text:
        return "; store scales and zero points of activations with shape [], not [1]"
    if re.search(r"Type 'tensor\(u?int[24]\)'.*QLinear", text):
        return (
            "; no operator computes on weights this narrow: expand the codes to int8 before DequantizeLinear"
        )
    if "No Op registered" in text or "not a registered function/op" in text:
        return "; this operator does not exist in the model's opset, or only in another runtime"

    return ""


def operator_name(node: onnx.NodeProto) -> str:
    """Operator with its domain, but for ONNX's own and ``com.microsoft``.

    Example:
        >>> operator_name(onnx.helper.make_node("Conv", [], [], domain="com.microsoft.nchwc"))
        'nchwc.Conv'
    """
    domain = node.domain.removeprefix("com.microsoft").removeprefix("ai.onnx").lstrip(".")
    return f"{domain}.{node.op_type}" if domain else node.op_type


def operator_counts(index: GraphIndex) -> dict[str, int]:
    """Number of nodes by operator, most frequent first."""
    return dict(Counter(operator_name(node) for node in index.nodes).most_common())


def _integer_tensors(index: GraphIndex) -> set[str]:
    """Activations that are 8-bit or 16-bit integers."""
    found: set[str] = set()
    for node in index.nodes:
        quantized = node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear")
        computed = node.op_type.startswith("QLinear") or (node.op_type == "QGemm" and len(node.input) > 7)
        moved = node.op_type in _ORDERING and node.input[0] in found
        if (quantized or computed or moved) and node.op_type not in _FLOAT_RESULT:
            found.add(node.output[0])

    return found
