"""Is `model.onnx` the network of `model.press`: made again from the artifact, and compared piece by piece."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.benchmarks.audits.fidelity import same_values
from modelpress.export.errors import InputError, ModelError
from modelpress.export.graphs.initializers import initializers, with_initializers
from modelpress.export.graphs.parts import metadata
from modelpress.export.handoff.bundle_files.verify import Finding
from modelpress.export.onnx_flavours import FLAVOUR_METADATA, FLAVOURS, check_flavour, prepare
from modelpress.export.onnx_flavours.int8 import activations_to_calibrate
from modelpress.export.onnx_flavours.int8_graph import Range, Steps, range_of, steps_of
from modelpress.export.post_training.calibration import ActivationRanges
from modelpress.export.quantized import QuantizedModel, dense_array

_DECODED = "float"  # the flavour that its metadata do not name
_WRITERS = ("modelpress", "onnx")  # whose versions decide how a graph is laid out
_NAMED = 4
_STEP_TOLERANCE = 1e-3  # processors may round sums differently


Calibrate = Callable[[], ActivationRanges]


def network_findings(
    model: QuantizedModel,
    written: onnx.ModelProto,
    *,
    flavour: str,
    versions: Mapping[str, object],
    calibrate: Calibrate | None = None,
) -> Iterator[Finding]:
    """Weights, graph and activation ranges of a written model beside those that its artifact gives.

    Args:
        model: The decoded artifact.
        written: The ONNX model that is said to be a flavour of it.
        flavour: Which.
        versions: Of the packages it is said to be written with: another version may lay a graph out otherwise.
        calibrate: Measures the ranges of activations again; None where there is nothing to measure them on.
    """
    try:
        check_flavour(flavour)
        stated = metadata(written).get(FLAVOUR_METADATA, _DECODED)
        if stated != flavour:
            yield Finding("flavour", False, f"claimed {flavour}, model.onnx is {stated}")
            return
        candidates = list(_made_again(model, written, flavour))
    except (InputError, ModelError) as error:
        yield Finding("weights", False, f"flavour {flavour} cannot be made of model.press: {error}")
        return

    yield from min((_compared(made, written, versions) for made in candidates), key=_n_failed)
    if FLAVOURS[flavour].integer is not None:
        yield _ranges_finding(model, written, flavour, calibrate)


def _ranges_finding(
    model: QuantizedModel, written: onnx.ModelProto, flavour: str, calibrate: Calibrate | None
) -> Finding:
    """Whether activations are quantized in the steps that calibration gives."""
    check = "activation ranges"
    if calibrate is None:
        why = "taken from model.onnx as they are; give the data of their calibration, --calibration-data PATH"
        return Finding(check, None, why)
    try:
        measured = calibrate()
        stated = _written_ranges(model, written, flavour, reduced=False)
    except (InputError, ModelError) as error:
        return Finding(check, False, f"cannot be measured on these data: {error}")

    worst, where = max((_step_difference(stated[name], measured[name]), name) for name in measured)
    if worst > _STEP_TOLERANCE:
        return Finding(
            check,
            False,
            f"{where}: its step is off by {worst:.1%} of the one that these data give, {len(measured)} compared",
        )
    return Finding(check, True, f"{len(measured)} activations have the steps that these data give")


def _step_difference(stated: Range, measured: Range) -> float:
    """How far two steps of integers lie apart, as a part of the second; infinite where their zeros differ."""
    one, other = steps_of(*stated), steps_of(*measured)
    if one.zero_point != other.zero_point:
        return float("inf")
    return abs(float(one.scale) / float(other.scale) - 1)


def _n_failed(findings: list[Finding]) -> int:
    return sum(finding.holds is not True for finding in findings)


def _compared(
    expected: onnx.ModelProto, written: onnx.ModelProto, versions: Mapping[str, object]
) -> list[Finding]:
    """Tensors bit for bit, then everything else."""
    left, right = initializers(expected), initializers(written)
    differing = [
        name
        for name in left.keys() | right.keys()
        if name not in left or name not in right or not same_values(left[name], right[name])
    ]
    repeated = Counter(tensor.name for tensor in written.graph.initializer) - Counter(right.keys())
    differing = sorted({*differing, *repeated})
    same_graph = _without_tensors(expected) == _without_tensors(written)

    if not differing:
        total = sum(int(np.size(array)) for array in left.values())
        weights = Finding("weights", True, f"{len(left)} tensors, {total:,} numbers, equal bit for bit")
    else:
        names = ", ".join(differing[:_NAMED]) + ", …" * (len(differing) > _NAMED)
        weights = _unless_older(
            "weights", f"{len(differing)} tensors are not those that model.press gives: {names}", versions
        )

    if same_graph:
        n_nodes = len(written.graph.node)
        return [weights, Finding("graph", True, f"{n_nodes} nodes, as model.press gives them")]
    where = _first_difference(expected, written)
    return [weights, _unless_older("graph", f"is not the one that model.press gives: {where}", versions)]


def _unless_older(check: str, difference: str, versions: Mapping[str, object]) -> Finding:
    """A difference is a failure, unless another version is said to have written the model."""
    others = {name: said for name in _WRITERS if (said := versions.get(name)) != version(name)}
    if not others:
        return Finding(check, False, difference)
    said = ", ".join(f"{name} {said or 'unknown'}" for name, said in others.items())
    return Finding(
        check, None, f"{difference}; it is said to be written by {said}, which may do it otherwise"
    )


def _without_tensors(model: onnx.ModelProto) -> bytes:
    """Everything but the initializers of the main graph."""
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    del rest.graph.initializer[:]
    return bytes(rest.SerializeToString(deterministic=True))


def _first_difference(expected: onnx.ModelProto, written: onnx.ModelProto) -> str:
    left, right = expected.graph.node, written.graph.node
    for k, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return f"node {k} is {other.op_type} {other.name!r}, expected {one.op_type} {one.name!r}"
    if len(left) != len(right):
        return f"it has {len(right)} nodes, expected {len(left)}"
    return "its nodes are the same; inputs, outputs, functions, metadata or versions are not"


def _made_again(model: QuantizedModel, written: onnx.ModelProto, flavour: str) -> Iterator[onnx.ModelProto]:
    """The flavour from the artifact; of integer ones, with the written activation ranges, at both ranges of weights."""
    if FLAVOURS[flavour].integer is None:
        yield _emitted(model, flavour)
        return
    for reduced in (False, True):
        ranges = _written_ranges(model, written, flavour, reduced=reduced)
        yield _emitted(model, flavour, ranges, reduced=reduced)


def _emitted(
    model: QuantizedModel, flavour: str, ranges: ActivationRanges | None = None, *, reduced: bool = False
) -> onnx.ModelProto:
    made = prepare(model, flavour=flavour, ranges=ranges, reduce_range=reduced).model
    return with_initializers(made.graph, {name: dense_array(t) for name, t in made.tensors.items()})


def _written_ranges(
    model: QuantizedModel, written: onnx.ModelProto, flavour: str, *, reduced: bool
) -> ActivationRanges:
    """The activation ranges of a written model, found where the flavour quantizes with ranges that are all different.

    Raises:
        ModelError: The written model does not quantize there.
    """
    names = activations_to_calibrate(model)
    marked = {name: (0.0, 1.0 + k) for k, name in enumerate(names)}
    by_step = {steps_of(*marked[name]).scale.tobytes(): name for name in names}
    sketch = _emitted(model, flavour, marked, reduced=reduced)

    ours, theirs = initializers(sketch), initializers(written)
    found = dict(marked)
    for one, other in zip(sketch.graph.node, written.graph.node, strict=False):
        if one.op_type != "QuantizeLinear" or other.op_type != "QuantizeLinear":
            continue
        name = by_step.get(ours[one.input[1]].tobytes()) if one.input[1] in ours else None
        if name is not None and len(other.input) == len(one.input):
            found[name] = _range_at(other, theirs)
    return found


def _range_at(node: onnx.NodeProto, tensors: Mapping[str, npt.NDArray[np.generic]]) -> Range:
    scale, zero_point = (tensors.get(name, np.zeros(0)) for name in node.input[1:3])
    single = scale.shape == zero_point.shape == ()
    if (
        not single
        or scale.dtype != np.float32
        or zero_point.dtype != np.uint8
        or not 0 < scale.item() < np.inf
    ):
        raise ModelError(
            f"model.onnx does not quantize {node.input[0]} by one positive scale and a zero point"
        )
    return range_of(Steps(np.float32(scale.item()), np.uint8(zero_point.item())))
