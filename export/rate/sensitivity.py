"""How far the outputs of a model move when a channel of a layer does: what a squared error there costs.

Measured forward alone, without gradients: one channel for each image of a batch gets a little noise, and the squared
movement of the outputs of that image, over the square of the noise, is that channel's; some hundred images serve all
channels of a layer in one run. It estimates the diagonal of ``J'J`` summed over positions, the Gauss-Newton matrix of
the squared error of the outputs. (The Fisher information of a classifier says next to nothing on images that it has
learned by heart: its probabilities are all near one.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from modelpress.export.graphs.parts import names_in
from modelpress.export.post_training.calibration import Feed
from modelpress.export.quantized import QuantizedModel
from modelpress.export.rate.activations import Activations, Array
from modelpress.export.rate.layers import Layer
from modelpress.export.runtime import open_decoded, run_feed

Floats = npt.NDArray[np.float64]
_NOISE = 0.05  # of the deviation of a layer's output
_PRIOR = 1.0  # measurements that the mean of a layer's channels counts for
_LIVELY = 1e-3  # of the largest deviation: channels that vary less give no pattern
_FLOOR = 1e-3  # of that mean: no channel is worth nothing


@dataclass(frozen=True)
class OutputScale:
    """The variance of each output of a model, by which movements are told.

    Attributes:
        variances: By name.
    """

    variances: Mapping[str, float]

    @classmethod
    def of(cls, outputs: Sequence[Activations]) -> "OutputScale":
        """Of the outputs of some calls."""
        return cls(
            {
                name: max(
                    float(
                        np.var(
                            np.concatenate(
                                [np.asarray(call[name], np.float64).reshape(-1) for call in outputs]
                            )
                        )
                    ),
                    1e-30,
                )
                for name in outputs[0]
            }
        )

    def moved(self, before: Activations, after: Activations, *, per_entry: bool) -> Floats:
        """Mean squared movement over variance, of each entry along the first axis or of all, summed over outputs."""
        total: Floats = np.zeros(1)
        for name, variance in self.variances.items():
            moved = np.asarray(after[name], np.float64) - np.asarray(before[name], np.float64)
            squares = moved**2 / variance
            total = total + (squares.reshape(len(squares), -1).mean(axis=1) if per_entry else squares.mean())
        return total


def sensitivities(
    model: QuantizedModel,
    layers: Sequence[Layer],
    feeds: Sequence[Feed],
    before: Sequence[Activations],
    *,
    seed: int = 0,
) -> dict[str, Floats]:
    """What a unit of squared error in each channel costs, by the output of the layer.

    Args:
        model: In float.
        layers: Those whose outputs are disturbed.
        feeds: Calls; each disturbs every layer once.
        before: The float outputs of these calls.
        seed: Of the noise.

    Returns:
        Shape ``(channels,)`` each: expected loss for a squared error of one, added at every position.
    """
    names = list(dict.fromkeys(layer.output for layer in layers))
    axes = {layer.output: _channel_axis(layer) for layer in layers}
    shows = open_decoded(_with_outputs(model, names), spinning=False)
    first = run_feed(shows, feeds[0])
    types = {name: first[name].dtype for name in names}
    noisy, places = _with_noise(model, types)
    session = open_decoded(noisy, spinning=False)
    scale = OutputScale.of(before)
    rng = np.random.default_rng(seed)
    nothing = {place: np.zeros(1, types[name]) for name, place in places.items()}
    sums: dict[str, tuple[Floats, Floats]] = {}

    for feed, clean in zip(feeds, before, strict=True):
        shown = run_feed(shows, feed)
        batch = min(len(np.atleast_1d(value)) for value in feed.values())
        for name in names:
            value = shown[name]
            axis = axes[name] % value.ndim
            per_entry = _counts_the_batch(value, axis, batch) and all(len(v) == batch for v in clean.values())
            channels = rng.permutation(np.arange(batch if per_entry else 1) + rng.integers(value.shape[axis]))
            channels %= value.shape[axis]
            noise, size = _noise(value, axis, channels, rng)
            after = run_feed(session, {**feed, **nothing, places[name]: noise.astype(types[name])})
            moved = scale.moved(clean, after, per_entry=per_entry)
            total, seen = sums.setdefault(name, (np.zeros(value.shape[axis]), np.zeros(value.shape[axis])))
            np.add.at(total, channels, moved / size**2)
            np.add.at(seen, channels, 1)

    return {name: _shrunk(total, seen) for name, (total, seen) in sums.items()}


def _channel_axis(layer: Layer) -> int:
    """Which axis of a layer's output counts the rows of its weight."""
    if layer.taps > 1 or (len(layer.shape) > 2 and layer.place.layout == "kernel"):
        return 1
    return -2 if layer.is_left else -1


def _counts_the_batch(value: Array, axis: int, batch: int) -> bool:
    return axis != 0 and len(value) == batch


def _noise(
    value: Array, axis: int, channels: npt.NDArray[np.intp], rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], float]:
    """Noise in one channel of each entry, or in one of all; and its deviation.

    It is what another channel makes of the same input: an error of weights spreads over positions as that does.
    """
    size = _NOISE * max(float(np.std(np.asarray(value, np.float32))), 1e-12)
    turned = np.moveaxis(np.asarray(value, np.float32), axis, 0)
    patterns = (turned - turned.mean(axis=tuple(range(1, turned.ndim)), keepdims=True)).reshape(
        len(turned), -1
    )
    deviations = patterns.std(axis=1)
    lively = np.flatnonzero(deviations > _LIVELY * deviations.max(initial=0))
    noise = np.zeros_like(turned)
    if not len(lively):
        noise[channels] = size
        return np.ascontiguousarray(np.moveaxis(noise, 0, axis)), size

    shape = turned.shape[1:]
    source = rng.choice(lively, len(channels))
    for entry, (channel, other) in enumerate(zip(channels, source, strict=True)):
        pattern = (size / deviations[other] * patterns[other]).reshape(shape)
        if len(channels) == 1:
            noise[channel] = pattern
        else:
            noise[channel, entry] = pattern[entry]
    return np.ascontiguousarray(np.moveaxis(noise, 0, axis)), size


def _shrunk(total: Floats, seen: Floats) -> Floats:
    """Means of few measurements, drawn towards the mean of all."""
    mean = total.sum() / max(seen.sum(), 1.0)
    if not mean > 0:
        return np.ones_like(total)
    return np.asarray(np.maximum((total + _PRIOR * mean) / (seen + _PRIOR), _FLOOR * mean), np.float64)


def _with_noise(
    model: QuantizedModel, types: Mapping[str, np.dtype[np.generic]]
) -> tuple[QuantizedModel, dict[str, str]]:
    """The model with something added to these activations, which are outputs too; and under which input names."""
    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    taken = names_in(graph)
    places: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []

    for node in model.graph.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        nodes.append(copy)
        for k, name in enumerate(node.output):
            if name not in types:
                continue
            clean, noise = _free(f"{name} before", taken), _free(f"{name} noise", taken)
            copy.output[k], places[name] = clean, noise
            nodes.append(helper.make_node("Add", [clean, noise], [name]))
            graph.graph.input.append(
                helper.make_tensor_value_info(noise, helper.np_dtype_to_tensor_dtype(types[name]), None)
            )

    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return QuantizedModel(graph, model.tensors), places


def _with_outputs(model: QuantizedModel, names: Sequence[str]) -> QuantizedModel:
    """The model with more outputs."""
    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    outputs = {value.name for value in graph.graph.output}
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    return QuantizedModel(graph, model.tensors)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "'"
    taken.add(name)
    return name
