"""How much integer arithmetic disturbs each layer, and which layers to leave in float for a given loss.

The float and the integer model run on the same inputs; of every layer the signal (squares of the float values) is
held against the noise (squares of the differences). Noise is handed on from layer to layer, so that a layer's own
share is what it adds to the noise of its inputs.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf, log10, sqrt

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from modelpress.export.errors import ModelError
from modelpress.export.graphs.activations import MOST_ACTIVATION_BYTES
from modelpress.export.graphs.parts import names_in
from modelpress.export.onnx_flavours.int8 import Int8Plan, activations_to_calibrate, plan
from modelpress.export.onnx_flavours.int8_storage import with_bytes
from modelpress.export.post_training.calibration import (
    ActivationRanges,
    CalibrationOptions,
    Feed,
    Inputs,
    calibrate,
    calls_of,
)
from modelpress.export.quantized import QuantizedModel
from modelpress.export.runtime import open_decoded, run_feed

_BATCH = 8
_BLOCK = 1 << 20  # numbers
_MOST_INPUTS, _MOST_CALLS = 64, 16  # noise is an average: more inputs change little


@dataclass(frozen=True)
class LayerNoise:
    """A layer in float against the same layer in integers.

    Attributes:
        name: Of the node.
        operator: Its type.
        noise: Squared error over squared signal of what it makes.
        own: The part of it that its inputs did not bring along.
    """

    name: str
    operator: str
    noise: float
    own: float

    @property
    def decibels(self) -> float:
        """Signal to noise; infinite where there is no noise."""
        return -10 * log10(self.noise) if self.noise > 0 else inf


@dataclass(frozen=True)
class Int8Noise:
    """What integers do to a model.

    Attributes:
        layers: Worst first: by what each adds.
        loss: Root of squared error over squared signal of the model's outputs, the worst of them.
        excluded: Layers that were left in float.
    """

    layers: list[LayerNoise]
    loss: float
    excluded: list[str] = field(default_factory=list)


def measure_noise(
    model: QuantizedModel,
    ranges: ActivationRanges,
    inputs: Inputs | Sequence[Feed],
    *,
    reduce_range: bool = False,
    exclude: Collection[str] = (),
) -> Int8Noise:
    """Run the model in float and in integers.

    Args:
        model: Graph and weights.
        ranges: Of its activations.
        inputs: As for calibration; of an array the first 64 are taken, of calls the first 16.
        reduce_range: As for `modelpress.export.onnx_flavours.prepare`.
        exclude: Likewise.

    Raises:
        InputError: The inputs do not fit, or nothing is called like an exclusion.
        ModelError: Nothing computes in integers.
    """
    planned = plan(model, ranges, reduce_range=reduce_range, exclude=exclude)
    outputs = [value.name for value in model.graph.graph.output]
    in_float = {**dict.fromkeys(n for layer in planned.layers for n in (*layer.inputs, layer.output))}
    noise = _noise_of(model, planned, [*in_float], outputs, inputs)

    layers = []
    for layer in planned.layers:
        brought = sum(noise.get(name, 0.0) for name in layer.inputs) / max(len(layer.inputs), 1)
        found = noise[layer.output]
        layers.append(LayerNoise(layer.name, layer.operator, found, max(found - brought, 0.0)))

    layers.sort(key=lambda layer: (-layer.own, -layer.noise))
    return Int8Noise(layers, sqrt(max((noise[name] for name in outputs), default=0.0)))


def exclude_until(
    model: QuantizedModel,
    ranges: ActivationRanges,
    inputs: Inputs | Sequence[Feed],
    options: CalibrationOptions,
    *,
    loss: float,
    reduce_range: bool = False,
    exclude: Collection[str] = (),
) -> tuple[Int8Noise, ActivationRanges]:
    """Leave layers in float, noisiest first, until the outputs are near enough; of those, as few as will do.

    Args:
        model: As for `measure_noise`, as are the others.
        ranges: As there.
        inputs: As there.
        options: How ranges are chosen of activations that only an exclusion makes integers of.
        loss: Of `Int8Noise`, not to be exceeded.
        reduce_range: As there.
        exclude: Left in float in any case.

    Returns:
        The noise of the last try, whose `excluded` begins with `exclude`; and all ranges.

    Raises:
        InputError: As for `measure_noise`.
        ModelError: As there, or no choice of layers meets the loss.
    """
    search = _Search(model, ranges, inputs, options, reduce_range)
    excluded = [*exclude]
    found = search.noise(excluded)
    n_more = 1
    while found.loss > loss:
        worst = [layer.name for layer in found.layers[:n_more]]
        if len(worst) == len(found.layers):
            raise ModelError(
                f"the outputs are off by {found.loss:.3g} of their size even with all but {len(worst)} layers in "
                f"float; a loss of {loss:.3g} cannot be met: take a flavour that computes in float"
            )

        excluded += worst
        found = search.noise(excluded)
        n_more = max(1, (len(excluded) - len(exclude)) // 2)  # a few tries more, not one for each layer

    # noise often shows behind the layer that makes it: what did not help goes back into integers
    for name in excluded[len(exclude) :]:
        fewer = [other for other in excluded if other != name]
        without = search.noise(fewer)
        if without.loss <= loss:
            excluded, found = fewer, without

    return Int8Noise(found.layers, found.loss, excluded), search.ranges


@dataclass
class _Search:
    """Tries of exclusions on one model; ranges are measured when an exclusion first needs them."""

    model: QuantizedModel
    ranges: ActivationRanges
    inputs: Inputs | Sequence[Feed]
    options: CalibrationOptions
    reduce_range: bool

    def noise(self, exclude: Collection[str]) -> Int8Noise:
        missing = [n for n in activations_to_calibrate(self.model, exclude) if n not in self.ranges]
        if missing:
            more = calibrate(self.model, missing, self.inputs, self.options)
            self.ranges = {**self.ranges, **more}

        return measure_noise(
            self.model, self.ranges, self.inputs, reduce_range=self.reduce_range, exclude=exclude
        )


def _noise_of(
    model: QuantizedModel,
    planned: Int8Plan,
    activations: list[str],
    outputs: list[str],
    inputs: Inputs | Sequence[Feed],
) -> dict[str, float]:
    """Squared error over squared signal, by the name in the float model."""
    integer, shown = _showing_floats(with_bytes(planned, planned.weights), planned, activations)
    reference = open_decoded(_with_outputs(model, activations))
    candidate = open_decoded(integer)

    sums = {name: np.zeros(2) for name in dict.fromkeys((*activations, *outputs))}
    for feed in _some_calls(model, inputs, activations):
        expected, found = run_feed(reference, feed), run_feed(candidate, feed)
        # inputs of the graph are no outputs: what they lose is not measured
        for name in sums:
            if name in expected and shown.get(name, name) in found:
                sums[name] += _squares(expected[name], found[shown.get(name, name)])

    return {name: float(error / signal) if signal else 0.0 for name, (error, signal) in sums.items()}


@dataclass
class FloatCalls:
    """What a float model makes of the first calibration inputs, kept as calibration runs it.

    Attributes:
        names: Of the model's outputs.
        left: How many inputs of an array are still to be kept, or how many calls.
        of_array: Whether inputs are counted, not calls.
        kept: What was fed, and the outputs by name.
        bytes_left: For outputs: those of the last call may exceed them.
    """

    names: list[str]
    left: int
    of_array: bool
    kept: list[tuple[Feed, Feed]] = field(default_factory=list)
    bytes_left: int = MOST_ACTIVATION_BYTES

    @classmethod
    def of(cls, model: QuantizedModel, inputs: Inputs | Sequence[Feed]) -> "FloatCalls":
        """None yet, of a model that will be given these inputs."""
        of_array = isinstance(inputs, np.ndarray)
        names = [value.name for value in model.graph.graph.output]
        return cls(names, _MOST_INPUTS if of_array else _MOST_CALLS, of_array)

    def keep(self, feed: Feed, made: Feed) -> None:
        """Keep a call, if it is among the first; `made` may hold more than the outputs."""
        if self.left <= 0 or self.bytes_left <= 0:
            return

        outputs = {name: made[name] for name in self.names}
        self.kept.append((feed, outputs))
        self.left -= len(next(iter(feed.values()))) if self.of_array else 1
        self.bytes_left -= sum(output.nbytes for output in outputs.values())


def output_losses(calls: FloatCalls, candidates: Sequence[QuantizedModel]) -> list[float]:
    """The loss of `Int8Noise` for each of several models that stand for a float model, on the same inputs.

    Raises:
        InputError: A model cannot be loaded.
    """
    sums = np.zeros((len(candidates), len(calls.names), 2))
    for of_candidate, candidate in zip(sums, candidates, strict=True):
        session = open_decoded(candidate)
        for feed, expected in calls.kept:
            found = run_feed(session, feed)
            of_candidate += [_squares(expected[name], found[name]) for name in calls.names]

    errors, signals = sums[..., 0], sums[..., 1]
    shares = np.divide(errors, signals, out=np.zeros_like(errors), where=signals > 0)
    return [sqrt(share) for share in shares.max(axis=1, initial=0.0)]


def _some_calls(
    model: QuantizedModel, inputs: Inputs | Sequence[Feed], observed: Sequence[str]
) -> Iterator[Feed]:
    left = _MOST_INPUTS if isinstance(inputs, np.ndarray) else _MOST_CALLS
    for feed in calls_of(model, inputs, batch=_BATCH, observed=observed):
        yield feed
        left -= len(next(iter(feed.values()))) if isinstance(inputs, np.ndarray) else 1
        if left <= 0:
            return


def _squares(expected: npt.NDArray[np.generic], found: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """Of the error, and of the signal."""
    if expected.dtype.kind != "f":
        return np.zeros(2)

    total = np.zeros(2)
    left, right = expected.reshape(-1), found.reshape(-1)
    for start in range(0, left.size, _BLOCK):  # in double precision, which takes twice the memory
        signal = np.asarray(left[start : start + _BLOCK], np.float64)
        candidate = np.asarray(right[start : start + _BLOCK], np.float64)
        finite = np.isfinite(signal)  # what masks make infinite has no size to hold an error against
        if not finite.all():
            signal, candidate = signal[finite], candidate[finite]
        error = candidate - signal
        total += np.dot(error, error), np.dot(signal, signal)
    return total


def _with_outputs(model: QuantizedModel, names: Sequence[str]) -> QuantizedModel:
    """The model with more outputs; of those it makes itself."""
    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    made = {name for node in graph.graph.node for name in node.output}
    known = {value.name for value in graph.graph.output}
    graph.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in names
        if name in made and name not in known
    )
    return QuantizedModel(graph, model.tensors)


def _showing_floats(
    model: QuantizedModel, planned: Int8Plan, activations: Sequence[str]
) -> tuple[QuantizedModel, dict[str, str]]:
    """The integer model with the values of its codes as outputs, and under which names they are found."""
    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    taken = names_in(graph)
    codes = {layer.output: layer.codes for layer in planned.layers if layer.codes is not None}

    shown: dict[str, str] = {}
    for name in activations:
        if name in codes and name not in shown:
            shown[name] = _free(f"{name} in integers", taken)
            graph.graph.node.append(helper.make_node("DequantizeLinear", codes[name], [shown[name]]))

    names = [shown.get(name, name) for name in activations]
    return _with_outputs(QuantizedModel(graph, model.tensors), names), shown


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "'"
    return name
