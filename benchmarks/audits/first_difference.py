"""Where two models part: the first layer whose activations differ."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from modelpress.export.errors import InputError
from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.operators import layer_weights
from modelpress.export.runtime import SessionSettings, open_session, run_feed

TOLERANCE = 1e-3  # of a layer's largest activation
# what a quantized form of a graph has besides, or may leave out: rectifiers vanish where quantizing clips as much
_LEFT_OUT = frozenset({"QuantizeLinear", "DequantizeLinear", "Identity", "Dropout", "Cast", "Relu", "Clip"})

Feed = Mapping[str, npt.NDArray[np.generic]]


def unoptimised_session(model: onnx.ModelProto) -> ort.InferenceSession:
    """A session that runs a graph as it stands: the meaning of the file, fused and folded nowhere.

    Raises:
        InputError: ONNX Runtime does not accept the model.
    """
    return open_session(bytes(model.SerializeToString()), settings=SessionSettings(optimised=False))


def first_differing_layer(
    reference: onnx.ModelProto,
    candidate: onnx.ModelProto,
    feed: Feed,
    *,
    tolerance: float = TOLERANCE,
) -> str:
    """Operator and name of the first layer whose output differs; empty where none does or the graphs do not match.

    Both run without optimisations, so that every activation exists; layers are matched by their place in the flow
    of data among the operators that work on activations. Whatever quantizes, rectifies or decodes weights is left out.

    Args:
        reference: Any model.
        candidate: Another of the same architecture.
        feed: A value for each of its inputs.
        tolerance: Largest difference allowed, as a fraction of the layer's largest activation.

    Raises:
        InputError: ONNX Runtime does not run one of them.
    """
    left, right = _layers(reference), _layers(candidate)
    if [op for op, _, _ in left] != [op for op, _, _ in right]:
        return ""

    expected = _activations(reference, [output for _, _, output in left], feed)
    actual = _activations(candidate, [output for _, _, output in right], feed)
    for (op, name, _), a, b in zip(left, expected, actual, strict=True):
        if a.shape != b.shape or np.abs(a - b).max(initial=0) > tolerance * np.abs(a).max(initial=0):
            return f"{op} {name}"

    return ""


def _layers(model: onnx.ModelProto) -> list[tuple[str, str, str]]:
    """Operator, name and output of every node that works on activations."""
    index = GraphIndex(model.graph)
    constant = index.constants()
    found = []
    for node in index.by_dataflow():
        output = next(filter(None, node.output), "")
        if node.op_type in _LEFT_OUT or not output or output in constant:
            continue

        # a layer is told by its weight, whose name survives where nodes are renamed
        named = next((name for name in layer_weights(node) if name in constant), node.name or output)
        found.append((node.op_type, named, output))

    return found


def _activations(model: onnx.ModelProto, names: list[str], feed: Feed) -> list[npt.NDArray[np.float64]]:
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    del exposed.graph.output[:]
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)  # types are inferred

    values = [*run_feed(unoptimised_session(exposed), feed).values()]
    if not all(isinstance(value, np.ndarray) and value.dtype.kind in "biuf" for value in values):
        raise InputError("some activations are no arrays of numbers")

    return [value.astype(np.float64) for value in values]
