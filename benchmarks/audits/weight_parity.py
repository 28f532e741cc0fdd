"""Integer codes and weights of two models, compared entry by entry."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.benchmarks.audits.fidelity import same_values
from modelpress.benchmarks.records import ParityStep
from modelpress.benchmarks.subjects.running_weights import running_weights, weight_steps
from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.operators import weight_inputs
from modelpress.export.isolation.messages import Array
from modelpress.export.quantized import QuantizedModel, QuantizedTensor


def compare_codes(frozen: QuantizedModel, packed: QuantizedModel, *, candidate: str) -> ParityStep:
    """The integer codes that were frozen against those of an artifact, with their scales and exact zeros.

    Args:
        frozen: What was packed.
        packed: What was read.
        candidate: Name of the artifact.
    """
    what, reference = "integer codes", "frozen network"
    expected, actual = frozen.quantized(), packed.quantized()

    largest, first, detail = 0, "", "equal bit for bit"
    for name in dict.fromkeys([*expected, *actual]):
        left, right = expected.get(name), actual.get(name)
        if left is None or right is None or left.shape != right.shape:
            return not_comparable(what, reference, candidate, f"{name} is not the same tensor in both")

        difference = _largest_code_difference(left, right)
        largest = max(largest, difference)

        # equal codes under different scales are different weights
        if not first and not left.equals(right):
            first = name
            detail = "codes differ" if difference else "codes agree; widths, scales or exact zeros do not"

    return ParityStep(
        reference=reference,
        candidate=candidate,
        what=what,
        n_compared=sum(tensor.codes.size for tensor in expected.values()),
        equal=not first,
        largest_difference=float(largest),
        first_difference=first,
        detail=detail,
    )


def _largest_code_difference(left: QuantizedTensor, right: QuantizedTensor) -> int:
    return int(np.abs(left.codes.astype(np.int64) - right.codes).max(initial=0))


def compare_weights(
    expected: onnx.ModelProto, actual: onnx.ModelProto, *, reference: str, candidate: str
) -> ParityStep:
    """The weights that run, bit for bit; where the second model rounds them to integers, in steps of its grid.

    Weights that have other names are matched by their place in the flow of data.

    Raises:
        InputError: Weights cannot be evaluated.
    """
    left, right = _oriented_weights(expected), _oriented_weights(actual)
    if not left or not right:
        return not_comparable("weights", reference, candidate, f"{_summary(left)} beside {_summary(right)}")

    pairs = _pairs(left, right)
    if pairs is None:
        why = f"{_summary(left)} beside {_summary(right)}, and shapes differ"
        return not_comparable("weights", reference, candidate, why)

    differing = [(a, b) for a, b in pairs if not same_values(_native_float(left[a]), _native_float(right[b]))]
    gaps = {b: np.abs(left[a].astype(np.float64) - right[b].astype(np.float64)) for a, b in differing}
    total = sum(weight.size for weight in left.values())

    return ParityStep(
        reference=reference,
        candidate=candidate,
        what="weights",
        n_compared=total,
        equal=not differing,
        largest_difference=max((float(gap.max(initial=0)) for gap in gaps.values()), default=0.0),
        first_difference=differing[0][0] if differing else "",
        detail=_detail(gaps, _steps(actual, right), total),
    )


def not_comparable(what: str, reference: str, candidate: str, why: str) -> ParityStep:
    """The step of two files that have nothing to compare."""
    return ParityStep(
        reference=reference,
        candidate=candidate,
        what=what,
        n_compared=0,
        equal=False,
        detail=f"not comparable: {why}",
    )


def _detail(gaps: Mapping[str, npt.NDArray[np.float64]], steps: Mapping[str, Array], total: int) -> str:
    """How many weights differ; and by how many steps, if all that differ were rounded to a grid."""
    if not gaps:
        return "equal bit for bit"
    share = f"{sum(int(np.count_nonzero(gap)) for gap in gaps.values()):,} of {total:,} weights differ"
    if any(name not in steps for name in gaps):
        return share
    in_steps = max(float((gap / steps[name].astype(np.float64)).max(initial=0)) for name, gap in gaps.items())
    return f"{share}, by at most {in_steps:.2f} steps of their integer grid"


def _oriented_weights(model: onnx.ModelProto) -> dict[str, Array]:
    """Running weights in the order of the flow of data, those of linear layers as ``(in, out)``."""
    flipped = _flipped(model)
    weights = running_weights(model)
    used = (name for node in GraphIndex(model.graph).by_dataflow() for name in node.input)
    names = [name for name in dict.fromkeys(used) if name in weights]
    return {name: weights[name].T if name in flipped else weights[name] for name in names}


def _steps(model: onnx.ModelProto, weights: Mapping[str, Array]) -> dict[str, Array]:
    """Width of an integer step of every weight that has one, in the shapes of `weights`."""
    flipped = _flipped(model)
    return {
        name: np.broadcast_to(width.T if name in flipped else width, weights[name].shape)
        for name, width in weight_steps(model).items()
        if name in weights
    }


def _flipped(model: onnx.ModelProto) -> set[str]:
    """Weights of linear layers that are stored as ``(out, in)``."""
    return {
        node.input[found.place]
        for node in model.graph.node
        for found in weight_inputs(node)
        if found.transposed_by and found.channel_axis(node, n_axes=2) == 0
    }


def _pairs(expected: Mapping[str, Array], actual: Mapping[str, Array]) -> list[tuple[str, str]] | None:
    """Weights that belong together: by name, or by place where names differ; None if shapes tell otherwise."""
    by_name = [(name, name) for name in expected] if set(expected) == set(actual) else []
    for pairs in (by_name, list(zip(expected, actual, strict=False))):
        complete = len(pairs) == len(expected) == len(actual)
        if complete and all(expected[a].shape == actual[b].shape for a, b in pairs):
            return pairs
    return None


def _summary(weights: Mapping[str, Array]) -> str:
    return f"{len(weights)} layers with {sum(w.size for w in weights.values()):,} weights"


def _native_float(weight: Array) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(weight, np.float32)
