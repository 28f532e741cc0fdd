"""Ranges of a network's activations, measured by running the float model on sample inputs."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from modelpress.export.choices import CALIBRATION_PERCENTILE, CalibrationMethod
from modelpress.export.errors import InputError, ModelError
from modelpress.export.graphs.activations import activation_sizes, batch_within
from modelpress.export.graphs.check import stand_in
from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.parts import metadata
from modelpress.export.post_training.observers import (
    Extremes,
    GrowingHistogram,
    Histogram,
    Range,
    entropy_range,
    least_error_range,
    percentile_range,
)
from modelpress.export.quantized import QuantizedModel
from modelpress.export.runtime import open_decoded, run_feed

Inputs = npt.NDArray[np.generic]
Feed = Mapping[str, npt.NDArray[np.generic]]  # what one call of a model takes: a value for each input
ActivationRanges = dict[str, Range]  # activation -> its lowest and highest value, 0 among them
INPUT_METADATA = "modelpress.input"
_TOLERANCE = 0.01  # of the span of all pixel values, for roundings of whoever normalised them


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """How ranges are chosen.

    Attributes:
        method: From minimum to maximum, or with clipping. `calibrate` looks at each activation alone: for `BEST` see
            `modelpress.export.onnx_flavours.int8_ranges`.
        percentile: For `PERCENTILE`: how much of the values each bound covers, in per cent.
        bins: Of the histograms.
        batch: Inputs run at a time, at most: the activations of a batch are in memory, so that it is smaller where
            they are large.

    Raises:
        InputError: A value is out of range.
    """

    method: CalibrationMethod = CalibrationMethod.MIN_MAX
    percentile: float = CALIBRATION_PERCENTILE
    bins: int = 2048
    batch: int = 32

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise InputError(
                f"percentile is {self.percentile}; expected more than 50, at most 100, e.g. 99.99"
            )
        if self.bins < 512:
            raise InputError(f"{self.bins} bins are too few for 256 levels; expected 512 or more, e.g. 2048")
        if self.batch < 1:
            raise InputError(f"calibration batch is {self.batch}; expected 1 or more")


def calibrate(
    model: QuantizedModel,
    activations: Sequence[str],
    inputs: Inputs | Sequence[Feed],
    options: CalibrationOptions | None = None,
) -> ActivationRanges:
    """Run the float model and choose a range for each activation.

    Args:
        model: Graph and weights; what it computes in float is measured.
        activations: Names of inputs or outputs of nodes of the main graph.
        inputs: What the network is given: shape ``(n, ...)``, of the type that its input has; or calls one by one,
            for models of several inputs, or of lengths that differ.
        options: The defaults are minimum and maximum.

    Returns:
        Low and high of each activation, low <= 0 <= high; low is exactly 0 after a rectifier.

    Raises:
        InputError: The inputs are none, do not fit the model, or are not what it expects; or the method is `BEST`.
        ModelError: An activation is no float tensor, or is not finite on these inputs.

    Example:
        >>> from onnx import parser
        >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[N, 2] images) => (float[N, 2] logits) '
        >>> model = QuantizedModel(parser.parse_model(text + "{ logits = Relu(images) }"), {})
        >>> calibrate(model, ["images", "logits"], np.array([[-1.0, 2.0], [0.5, 0.0]], np.float32))
        {'images': (-1.0, 2.0), 'logits': (0.0, 2.0)}
    """
    options = options or CalibrationOptions()
    (ranges,) = calibrate_by([options.method], model, activations, inputs, options)
    return ranges


def calibrate_by(
    methods: Sequence[CalibrationMethod],
    model: QuantizedModel,
    activations: Sequence[str],
    inputs: Inputs | Sequence[Feed],
    options: CalibrationOptions,
    *,
    watch: Callable[[Feed, Feed], None] | None = None,
) -> list[ActivationRanges]:
    """`calibrate` by several methods at once, in place of that of the options.

    One pass over the inputs finds the extremes, and counts some values for the least squared error; percentiles and
    entropy, which hang on the few largest values, take a second pass, as their finer histograms need bounds beforehand.
    In the first, `watch` is shown each call and what the model made of it, its own outputs among that.

    Raises:
        InputError: As for `calibrate`.
        ModelError: Likewise.
    """
    if CalibrationMethod.BEST in methods:
        raise InputError(
            f"method {CalibrationMethod.BEST} compares outputs of integer models, not activations; "
            "see modelpress.export.onnx_flavours.int8_ranges.choose_ranges"
        )

    feeds = calls_of(model, inputs, batch=options.batch, observed=activations)
    session = open_decoded(_observed(model, activations))

    def batches(watch: Callable[[Feed, Feed], None] | None) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        for feed in feeds:
            made = run_feed(session, feed)
            if watch is not None:
                watch(feed, made)
            values = {**made, **feed}  # an input may itself be one of the activations
            for name in activations:
                if values[name].size:
                    yield name, _checked(name, values[name])

    extremes = {name: Extremes() for name in activations}
    grown = {name: GrowingHistogram(bins=options.bins) for name in activations}
    for name, values in batches(watch):
        extremes[name].add(values)
        if CalibrationMethod.MSE in methods:
            grown[name].add(values)
    widest = {name: seen.range() for name, seen in extremes.items()}

    histograms = {name: _empty(bounds, options) for name, bounds in widest.items()}
    if {CalibrationMethod.PERCENTILE, CalibrationMethod.ENTROPY} & {*methods}:
        for name, values in batches(None):
            histograms[name].add(values)

    def chosen(method: CalibrationMethod, name: str) -> Range:
        match method:
            case CalibrationMethod.PERCENTILE:
                return percentile_range(histograms[name], options.percentile)
            case CalibrationMethod.MSE:
                return _within(least_error_range(grown[name].histogram()), widest[name])
            case CalibrationMethod.ENTROPY:
                return entropy_range(histograms[name])
        return widest[name]

    return [{name: chosen(method, name) for name in activations} for method in methods]


def _within(bounds: Range, widest: Range) -> Range:
    """Bins reach a little further than values."""
    return max(bounds[0], widest[0]), min(bounds[1], widest[1])


def _empty(bounds: Range, options: CalibrationOptions) -> Histogram:
    return Histogram(*bounds, np.zeros(options.bins, np.int64))


def calls_of(
    model: QuantizedModel,
    inputs: Inputs | Sequence[Feed],
    *,
    batch: int,
    observed: Sequence[str] = (),
) -> list[Feed]:
    """Calls of a model, checked; views of the inputs, some at a time, or the calls that were given.

    Args:
        model: Graph and weights.
        inputs: As for `calibrate`.
        batch: So many at a time, at most.
        observed: Activations that are kept beside what the model needs itself.

    Raises:
        InputError: There are none, or they do not fit the model.
    """
    if not isinstance(inputs, np.ndarray):
        _check_feeds(model, inputs)
        return [*inputs]

    check_inputs(model.graph, list(model.tensors), inputs)
    (value,) = (value for value in model.graph.graph.input if value.name not in model.tensors)
    dims = value.type.tensor_type.shape.dim
    fixed = _fixed_batch([axis.dim_value or None for axis in dims], len(inputs))
    step = fixed or bounded_batch(model, {value.name: inputs.shape[1:]}, most=batch, observed=observed)
    last = len(inputs) - len(inputs) % fixed if fixed else len(inputs)
    return [{value.name: inputs[start : start + step]} for start in range(0, last, step)]


def bounded_batch(
    model: QuantizedModel,
    examples: Mapping[str, tuple[int, ...]],
    *,
    most: int,
    observed: Sequence[str] = (),
) -> int:
    """How many examples at a time, so that what is computed of them does not fill the memory.

    Args:
        model: Graph and weights.
        examples: Shape of an example by input, the batch axis left out.
        most: Of any model.
        observed: As for `calls_of`.

    Raises:
        ModelError: The graph is of an old kind and damaged.
    """
    shapes = {name: (1, *shape) for name, shape in examples.items()}
    sizes = activation_sizes(stand_in(model), shapes, weights=model.tensors)
    return batch_within(sizes.observed(observed), 1, most=most)


def _check_feeds(model: QuantizedModel, feeds: Sequence[Feed]) -> None:
    if not feeds:
        raise InputError("there are no calibration inputs; expected 100 to 1,000")

    declared = {value.name: value for value in model.graph.graph.input if value.name not in model.tensors}
    for feed in feeds:
        if feed.keys() != declared.keys():
            raise InputError(
                f"calibration inputs are called {', '.join(feed)}; the model's are {', '.join(declared)}"
            )
        for name, array in feed.items():
            expected = helper.tensor_dtype_to_np_dtype(declared[name].type.tensor_type.elem_type)
            if array.dtype != expected:
                raise InputError(f"{name}: calibration data have type {array.dtype}; expected {expected}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise InputError(f"{name}: calibration data hold NaN or infinity")


def _fixed_batch(shape: Sequence[int | str | None], n_inputs: int) -> int | None:
    """The only batch that a model takes; None for any. Inputs that fill none are left out.

    Raises:
        InputError: There are fewer inputs than one batch.
    """
    batch = shape[0] if shape else None
    if not isinstance(batch, int) or batch < 1:
        return None
    if n_inputs < batch:
        raise InputError(
            f"the model takes {batch} inputs at a time; {n_inputs} calibration inputs are too few"
        )

    return batch


def _observed(model: QuantizedModel, activations: Sequence[str]) -> QuantizedModel:
    """The model with these activations as outputs beside its own."""
    index = GraphIndex(model.graph.graph)
    inputs = {value.name for value in model.graph.graph.input}
    for name in activations:
        if name not in index.producers and name not in inputs:
            raise ModelError(f"{name}: no node of the graph makes this activation")

    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    wanted = [name for name in activations if name in index.producers and name not in index.outputs]
    graph.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted)

    return QuantizedModel(graph, model.tensors)


def _checked(name: str, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    if values.dtype != np.float32:
        raise ModelError(f"{name}: the activation has type {values.dtype}; expected float32")
    # the extremes tell, without a copy as large as the activation: NaN is both of them
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise ModelError(f"{name}: the activation is NaN or infinite on the calibration data")
    return np.asarray(values, np.float32)


def check_inputs(graph: onnx.ModelProto, tensors: Sequence[str], inputs: Inputs) -> None:
    """Refuse calibration inputs that the network was not made for.

    Args:
        graph: The model; its ``modelpress.input`` metadata, where present, tell which values pixels can have.
        tensors: Names of its initializers.
        inputs: Shape ``(n, ...)``.

    Raises:
        InputError: There are none; their type, shape or values do not fit.
    """
    values = [value for value in graph.graph.input if value.name not in set(tensors)]
    if len(values) != 1:
        names = ", ".join(value.name for value in values)
        raise InputError(
            f"the model has {len(values)} inputs ({names}); calibration needs one: a batch of images"
        )
    expected = np.dtype(helper.tensor_dtype_to_np_dtype(values[0].type.tensor_type.elem_type))
    if inputs.dtype != expected:
        normalised = ", normalised" * (expected.kind == "f")
        raise InputError(f"calibration data have type {inputs.dtype}; expected {expected}{normalised}")

    if not len(inputs.shape) or not inputs.size:
        raise InputError(f"calibration data are empty: shape {inputs.shape}; expected 100 to 1,000 images")

    _check_shape(values[0], inputs.shape)
    numbers: npt.NDArray[np.floating | np.integer] = inputs  # type: ignore[assignment]  # by their type
    if not np.isfinite(numbers).all():
        raise InputError("calibration data hold NaN or infinity")
    if numbers.min() == numbers.max():
        raise InputError(
            f"calibration data are all {numbers.min()}: nothing can be learnt from them about ranges"
        )

    stated = pixel_normalisation(metadata(graph))
    if stated is not None and inputs.ndim == 4 and inputs.shape[1] == len(stated[0]):
        _check_pixels(np.asarray(inputs, np.float32), *stated)


def _check_shape(value: onnx.ValueInfoProto, shape: tuple[int, ...]) -> None:
    if not value.type.tensor_type.HasField("shape"):
        return

    axes = value.type.tensor_type.shape.dim
    expected = tuple(axis.dim_value if axis.HasField("dim_value") else axis.dim_param or "?" for axis in axes)

    fits = len(shape) == len(axes) and all(
        not isinstance(e, int) or e == n for e, n in zip(expected[1:], shape[1:], strict=True)
    )
    if not fits:
        raise InputError(
            f"calibration data have shape {shape}; the model's input {value.name} expects "
            f"({', '.join(map(str, expected))})"
        )


def pixel_normalisation(metadata: Mapping[str, str]) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation per channel, in units of pixel / 255; None where the model does not say.

    Args:
        metadata: The model's ``metadata_props``.

    Raises:
        InputError: The metadata are there, but damaged.
    """
    text = metadata.get(INPUT_METADATA)
    if text is None:
        return None

    try:
        stated = json.loads(text)
        mean, std = [float(v) for v in stated["mean"]], [float(v) for v in stated["std"]]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise InputError(f"the model's metadata {INPUT_METADATA} are damaged: {text[:100]!r}") from error

    if not mean or len(mean) != len(std) or not np.isfinite(mean + std).all() or min(std) <= 0:
        raise InputError(f"the model's metadata {INPUT_METADATA} are damaged: mean {mean}, std {std}")

    return mean, std


def _check_pixels(inputs: npt.NDArray[np.float32], mean: list[float], std: list[float]) -> None:
    lows, highs = inputs.min(axis=(0, 2, 3)), inputs.max(axis=(0, 2, 3))
    for channel, (m, s) in enumerate(zip(mean, std, strict=True)):
        low, high = -m / s, (1 - m) / s
        slack = _TOLERANCE * (high - low)
        if lows[channel] < low - slack or highs[channel] > high + slack:
            raise InputError(
                f"calibration data run from {lows[channel]:.4g} to {highs[channel]:.4g} in channel {channel}; the "
                f"model expects (pixel / 255 - {m}) / {s}, which lies within {low:.4g} to {high:.4g}; normalise the "
                "images, or pass them as uint8 and they will be"
            )
