"""Fusion audit: what ONNX Runtime makes of a file, operator by operator, and what stands in the way.

The optimised graph is the one of this machine: blocked convolutions (NCHWc), for one, exist on x86 only.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

import onnx

from modelpress.benchmarks.audits.fusion_reasons import Diagnosis, Obstacle, quantization_parameters
from modelpress.benchmarks.audits.optimised_graph import (
    FOLDED,
    REMOVED,
    Fate,
    OptimisedGraph,
    operator_counts,
    operator_name,
    optimised_graph,
)
from modelpress.benchmarks.records import FusionAudit, NodeAudit
from modelpress.export.graphs.operators import is_standard, layer_weights

COMPUTE = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "Sum", "Concat", "Pad", "Resize"}
    | {"BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization", "LRN"}
    | {"AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceMax"}
    | {"Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "Mish", "Sigmoid", "HardSigmoid"}
    | {"HardSwish", "Tanh", "Softplus", "Erf", "Softmax", "LogSoftmax", "Sqrt", "Pow", "Exp"}
    | {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
    | {"QLinearAdd", "QLinearMul", "QLinearGlobalAveragePool", "QLinearAveragePool", "QGemm"}
)
_QUANTIZES = ("QuantizeLinear", "DynamicQuantizeLinear")
_ON_INTEGERS = re.compile(r"QLinear|QGemm|(Conv|MatMul)Integer")


def fusion_audit(serialised: bytes, *, name: str) -> FusionAudit:
    """List every compute operator of a model beside what runs in its place, with reasons and remedies.

    Args:
        serialised: The bytes of an ONNX file, from anywhere.
        name: What messages call it.

    Raises:
        InputError: It is no ONNX model, or ONNX Runtime does not load it.

    Example:
        >>> info = onnx.helper.make_tensor_value_info
        >>> graph = onnx.helper.make_graph(
        ...     [onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [info("x", 1, [2])], [info("y", 1, [2])])
        >>> opset = onnx.helper.make_opsetid("", 13)
        >>> model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[opset])
        >>> fusion_audit(model.SerializeToString(), name="relu").summary
        ['float model: nothing in it asks for integers', '1 Relu run as Relu']
    """
    pair = optimised_graph(serialised, name=name)
    audit = _Audit(pair)
    nodes = [audit.node(k) for k, node in enumerate(pair.emitted.nodes) if audit.computes(node)]

    return FusionAudit(
        emitted=operator_counts(pair.emitted),
        optimised=operator_counts(pair.optimised),
        nodes=nodes,
        summary=[audit.kind(), *_by_operator(nodes, audit.quantized), *_by_reason(nodes), *audit.leftovers()],
    )


class _Audit:
    """Facts about one model that its nodes share."""

    def __init__(self, pair: OptimisedGraph) -> None:
        self.pair = pair
        self.constant = pair.emitted.constants()
        self.unfolded = pair.optimised.constants() - set(pair.optimised.stored)
        self.quantized = any(
            n.op_type in _QUANTIZES or _ON_INTEGERS.match(n.op_type) for n in pair.emitted.nodes
        )
        self.diagnosed = any(n.op_type == "QuantizeLinear" for n in pair.emitted.nodes)
        self.blocked = any(n.domain.endswith("nchwc") and n.op_type == "Conv" for n in pair.optimised.nodes)
        self.diagnosis = Diagnosis(pair.emitted, quantization_parameters(pair.model, pair.emitted))

    def computes(self, node: onnx.NodeProto) -> bool:
        """Whether a node is work at every inference, and not part of decoding weights."""
        return node.op_type in COMPUTE and not all(name in self.constant for name in node.output if name)

    def kind(self) -> str:
        """What the file asks for."""
        if any(n.op_type == "DynamicQuantizeLinear" for n in self.pair.emitted.nodes):
            return (
                "dynamically quantized model: ranges are measured at every inference, and activations go between "
                "layers in float; static quantization (QuantizeLinear with calibrated scales) avoids both"
            )
        if self.quantized:
            return "quantized model: activations are quantized in the graph"

        return "float model: nothing in it asks for integers"

    def node(self, number: int) -> NodeAudit:
        """The audit of one compute operator."""
        node, fate = self.pair.emitted.nodes[number], self.pair.fate(number)
        obstacles = [] if self.pair.is_fused(number) else list(self._obstacles(node, fate))

        return NodeAudit(
            node=node.name or node.output[0],
            op=operator_name(node),
            runs_as=fate.runs_as,
            integer=fate.integer,
            reason="; ".join(obstacle.reason for obstacle in obstacles),
            remedy="; ".join(obstacle.remedy for obstacle in obstacles if obstacle.remedy),
        )

    def _obstacles(self, node: onnx.NodeProto, fate: Fate) -> Iterator[Obstacle]:
        if fate.place is None:
            return

        if self.diagnosed and is_standard(node) and not _ON_INTEGERS.match(node.op_type):
            found = self.diagnosis.of(node, fate)
            if found:
                yield found

        if not fate.integer:
            yield from self._unfolded_weight(node, fate.place)

        if self.blocked and fate.runs_as == "Conv" and not self.quantized:
            yield Obstacle(
                "ONNX Runtime has no blocked (NCHWc) form of it, as of other convolutions here", ""
            )

    def _unfolded_weight(self, node: onnx.NodeProto, place: int) -> Iterator[Obstacle]:
        """The weight is no constant to the runtime."""
        weights = [name for name in layer_weights(node) if name in self.constant]
        stored = set(self.pair.emitted.ancestors(weights)[1]) | set(weights)
        if stored & self.pair.emitted.overridable:
            yield Obstacle(
                "its weight is an input of the graph: nothing is folded or reordered for it",
                "list initializers as inputs of the graph no more",
            )
        elif weights and (makers := self._makers(place)):
            how = "dequantized" if makers == {"DequantizeLinear"} else "decoded"
            bad = ", ".join(sorted(makers))
            remedy = "" if self.quantized else f"decode it by Cast, Sub, Mul and Gather instead of {bad}"
            yield Obstacle(f"its weight is {how} at every inference ({bad} is not folded)", remedy)

    def _makers(self, place: int) -> set[str]:
        """Operators that make the weight of an optimised node from constants at every inference."""
        node = self.pair.optimised.nodes[place]
        weights = [name for name in node.input[:2] if name in self.unfolded]
        return {self.pair.optimised.nodes[k].op_type for k in self.pair.optimised.ancestors(weights)[0]}

    def leftovers(self) -> Iterator[str]:
        """What runs besides the compute operators and should not."""
        again = [
            node
            for node in self.pair.optimised.nodes
            if node.output and all(name in self.unfolded for name in node.output if name)
        ]
        dequantized = [node for node in again if node.op_type == "DequantizeLinear"]

        users = {k for node in dequantized for k in self.pair.optimised.consumers.get(node.output[0], ())}
        if users:
            counts = Counter(operator_name(self.pair.optimised.nodes[k]) for k in users)
            counted = " and ".join(f"{n} {op}" for op, n in counts.items())
            slower = "" if self.quantized else ": measured 1.7 to 2.2 times slower than float"
            yield f"stored weights of {counted} are dequantized at every inference{slower}"

        others = Counter(operator_name(node) for node in again if node.op_type != "DequantizeLinear")
        if others:
            counted = ", ".join(f"{n} {op}" for op, n in others.items())
            yield f"{counted} on stored tensors: not folded, computed at every inference"

        if self.pair.emitted.overridable:
            yield (
                f"{len(self.pair.emitted.overridable)} initializers are inputs of the graph too, so nothing that "
                "depends on them is folded: remove them from the inputs"
            )

        if self.quantized:
            yield self._conversions(len(dequantized))

    def _conversions(self, on_weights: int) -> str:
        counts = Counter(node.op_type for node in self.pair.optimised.nodes)
        quantize = sum(counts[op] for op in _QUANTIZES)
        dequantize = counts["DequantizeLinear"] - on_weights
        return (
            f"between float and integers: {quantize} QuantizeLinear and {dequantize} DequantizeLinear on activations "
            "(least: one at the input, and one at the output unless the last operator gives floats)"
        )


def _by_operator(nodes: list[NodeAudit], quantized: bool) -> Iterator[str]:
    """One line per operator: how many compute on integers, and as what."""
    groups: defaultdict[str, list[NodeAudit]] = defaultdict(list)
    for node in nodes:
        groups[node.op].append(node)

    for op, members in groups.items():
        on_integers = [node for node in members if node.integer]
        in_float = [node for node in members if not node.integer and node.runs_as not in (REMOVED, FOLDED)]
        gone = Counter(node.runs_as for node in members if node.runs_as in (REMOVED, FOLDED))

        parts = [f"{n} {how}" for how, n in gone.items()]
        if quantized:
            as_what = f" ({_names(on_integers)})" if on_integers else ""
            if in_float:
                parts.insert(0, f"{len(in_float)} in float ({_names(in_float)})")
            parts.insert(0, f"{len(on_integers)} of {len(members)} {op} compute on integers{as_what}")
        elif in_float:
            parts.insert(0, f"{len(in_float)} {op} run as {_names(in_float)}")

        yield "; ".join(parts) if quantized or in_float else f"{op}: {'; '.join(parts)}"


def _names(nodes: list[NodeAudit]) -> str:
    return ", ".join(name for name, _ in Counter(node.runs_as for node in nodes).most_common())


def _by_reason(nodes: list[NodeAudit]) -> Iterator[str]:
    """One line per reason, with how many operators it holds for."""
    counts = Counter((node.op, node.reason, node.remedy) for node in nodes if node.reason)
    for (op, reason, remedy), n in counts.items():
        yield f"{n} {op}: {reason}" + (f" (remedy: {remedy})" if remedy else "")
