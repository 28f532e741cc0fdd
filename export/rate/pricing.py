"""A whole model at one price: layer by layer in the order of the graph, each on the packed ones before it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import InputError
from modelpress.export.graphs.operators import Layout
from modelpress.export.grids import code_range
from modelpress.export.lazy_tensors import dense_of
from modelpress.export.post_training.calibration import Feed
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, Tensor
from modelpress.export.rate.activations import Activations, Walk, outputs_of
from modelpress.export.rate.bit_costs import MAX_LEVEL, BitCosts, Neighbourhood
from modelpress.export.rate.done import DoneLayer
from modelpress.export.rate.layers import Array, Layer, find_layers
from modelpress.export.rate.outcomes import LayerOutcome
from modelpress.export.rate.rounding import Problem, Rounded, conditional_variances, inverse_factor, rounded
from modelpress.export.rate.sensitivity import sensitivities
from modelpress.export.rate.statistics import Floats, Sampler, Statistics, samples
from modelpress.export.rate.unfinished import Unfinished

OnLayer = Callable[[str], None]
_DAMPING = (
    0.01  # of the mean variance, added to each: covariances of few samples are not to be believed whole
)
_LEAST_DAMPING = 1e-12  # of inputs that never vary
_ROWS_AT_ONCE = 1 << 22  # elements of a weight that are rounded together
_FEW_COLUMNS = 32  # rows so short that a scale for each may cost more than it saves
_SCALE_BITS = 16
_IMPORTANCE = "importance"


@dataclass(frozen=True)
class Pricing:
    """A model, its calibration inputs, and what is known of it before any price is set.

    Attributes:
        model: In float.
        feeds: Calls.
        layers: Those that are rounded, in the order of the graph.
        kept: Why other weights are not.
        importance: What a squared error of each channel costs, by the name of a layer's output.
        outputs: In float, call by call.
        unfinished: Where what is done is kept; None: nowhere.
    """

    model: QuantizedModel
    feeds: Sequence[Feed]
    layers: Sequence[Layer]
    kept: Mapping[str, str]
    importance: Mapping[str, Floats]
    outputs: Sequence[Activations] = field(repr=False)
    unfinished: Unfinished | None = None

    @classmethod
    def of(
        cls,
        model: QuantizedModel,
        feeds: Sequence[Feed],
        *,
        min_elements: int,
        n_probes: int,
        unfinished: Unfinished | None = None,
    ) -> "Pricing":
        """Look at a model.

        Args:
            model: In float; its tensors are asked for several times.
            feeds: Calibration calls.
            min_elements: Smaller weights stay as they are.
            n_probes: Calls that measure sensitivities.
            unfinished: Where what is done is kept.

        Raises:
            InputError: No weight can be rounded at a price, or no output tells what it is worth.
        """
        layers, kept = find_layers(model, min_elements=min_elements)
        if not layers:
            raise InputError("there is no weight that could be rounded at a price")
        outputs = outputs_of(model, feeds)
        if not outputs[0]:
            raise InputError("the model has no output of floats: what a weight is worth cannot be measured")

        importance: Mapping[str, Floats] = {} if unfinished is None else unfinished.arrays(_IMPORTANCE)
        if importance.keys() != {layer.output for layer in layers}:
            importance = sensitivities(model, layers, feeds[:n_probes], outputs[:n_probes])
            if unfinished is not None:
                unfinished.keep_arrays(_IMPORTANCE, importance)
        return cls(model, feeds, layers, kept, importance, outputs, unfinished)

    def at(self, price: float, *, on_layer: OnLayer | None = None) -> "Priced":
        """The model with every weight rounded at this price: of a bit, in the unit of the loss."""
        tensors: dict[str, Tensor] = {name: dense_of(self.model.tensors, name) for name in self.model.tensors}
        # the walk in float is made anew at each price: what it would keep is larger than the model
        walks = Walk(self.model.graph, self.feeds), Walk(self.model.graph, self.feeds)
        costs, outcomes = BitCosts(), []
        before = [self._done(layer, price, number) for number, layer in enumerate(self.layers)]
        for number, layer in enumerate(self.layers):
            done = before[number]
            if done is None:
                done = self._round(layer, price, tensors, costs, walks)
                if self.unfinished is not None:
                    self.unfinished.keep_layer(price, number, done.as_arrays())
            elif None in before:  # the steps of a walk decide which calls it can keep
                self._inputs(layer, tensors, walks)
            self._put(layer, done, tensors, costs)
            outcomes.append(done.outcome(layer))
            if on_layer is not None:
                on_layer(layer.weight)
        return Priced(QuantizedModel(self.model.graph, tensors), price, tuple(outcomes))

    def _done(self, layer: Layer, price: float, number: int) -> DoneLayer | None:
        """What a layer has become before an interruption, if it was reached."""
        stored = {} if self.unfinished is None else self.unfinished.layer(price, number)
        if not stored:
            return None
        try:
            return DoneLayer.of_arrays(
                stored, layer, np.asarray(dense_of(self.model.tensors, layer.weight)).dtype
            )
        except (KeyError, ValueError, TypeError):
            return None

    @staticmethod
    def _put(layer: Layer, done: DoneLayer, tensors: dict[str, Tensor], costs: BitCosts) -> None:
        """Put a weight and its bias among the tensors."""
        tensors[layer.weight] = done.tensor
        costs.counts = done.counts
        if done.bias is not None and layer.bias is not None:
            tensors[layer.bias] = done.bias

    def _round(
        self,
        layer: Layer,
        price: float,
        tensors: Mapping[str, Tensor],
        costs: BitCosts,
        walks: tuple[Walk, Walk],
    ) -> DoneLayer:
        """Round one weight."""
        weight = np.asarray(tensors[layer.weight])
        matrices = layer.matrices(weight).astype(np.float64)
        bias = self._free_bias(layer, tensors)
        view = self._view(layer, tensors, matrices, walks, free_bias=bias is not None)

        best: _Layered | None = None
        for steps in _steps(layer, view, price):
            found = _solved(layer, view, steps, price, costs)
            if best is None or found.cost < best.cost:
                best = found
        assert best is not None
        costs.finished(best.counts)

        tensor = _tensor(layer, best, weight)
        if bias is not None:
            decoded = layer.matrices(tensor.dequantize()).astype(np.float64)
            moved = (matrices @ view.mean[:, :, None] - decoded @ view.seen[:, :, None]).reshape(-1)
            bias = _half(bias + moved).astype(bias.dtype)
        return DoneLayer(tensor, bias, costs.counts, best.bits / max(weight.size, 1), best.loss)

    def _free_bias(self, layer: Layer, tensors: Mapping[str, Tensor]) -> Array | None:
        """The bias of a layer, if it is one of plain numbers that no other node reads."""
        name = layer.bias
        if name is None or name not in tensors or isinstance(tensors[name], QuantizedTensor):
            return None
        reads = sum(list(node.input).count(name) for node in self.model.graph.graph.node)
        value = np.asarray(tensors[name])
        fits = value.size == layer.n_rows
        return value.reshape(-1) if reads == 1 and fits and layer.node.op_type != "ConvTranspose" else None

    def _inputs(
        self, layer: Layer, tensors: Mapping[str, Tensor], walks: tuple[Walk, Walk]
    ) -> tuple[list[Array], list[Array]]:
        """What a weight is multiplied with, in float and behind packed layers, call by call."""
        name = layer.output if layer.is_recurrent else layer.input
        passing = not layer.is_recurrent
        return (
            walks[0].to(name, self.model.tensors, passing=passing),
            walks[1].to(name, tensors, passing=passing),
        )

    def _view(
        self,
        layer: Layer,
        tensors: Mapping[str, Tensor],
        matrices: Floats,
        walks: tuple[Walk, Walk],
        *,
        free_bias: bool,
    ) -> "_View":
        """What the weight is to become, and how its errors count."""
        in_float, packed = self._inputs(layer, tensors, walks)
        if layer.place.layout is Layout.TABLE:
            return _looked_up(matrices, self.importance[layer.output], in_float)

        groups, rows, columns = matrices.shape
        importance = _of_rows(layer, self.importance[layer.output], groups, rows)
        sampler, sums = Sampler(len(in_float)), Statistics()
        for first, second in zip(in_float, packed, strict=True):
            both = [first, first if np.array_equal(first, second) else second]
            sums.add(*samples(layer, both, sampler))

        mean, seen, square, cross = sums.centred(free_bias=free_bias)
        variance = np.trace(square, axis1=1, axis2=2) / columns
        diagonal = np.arange(columns)
        for covariance in (square, cross):
            covariance[:, diagonal, diagonal] += (_DAMPING * variance + _LEAST_DAMPING)[:, None]

        wanted = matrices @ cross
        del cross  # as large as the next one
        upper = inverse_factor(square)
        return _View(wanted @ upper.swapaxes(1, 2) @ upper, square, upper, importance, mean, seen)


@dataclass(frozen=True)
class Priced:
    """A model at a price.

    Attributes:
        model: Its weights are codes.
        price: Of a bit.
        layers: What became of each.
    """

    model: QuantizedModel
    price: float
    layers: tuple[LayerOutcome, ...]

    @property
    def estimated_loss(self) -> float:
        """The sum of what the layers are estimated to cost."""
        return sum(layer.loss for layer in self.layers)


@dataclass(frozen=True)
class _View:
    """A weight as a problem.

    Attributes:
        target: Best weights behind packed layers, shape ``(groups, rows, columns)``.
        hessian: Of the columns.
        upper: Its `inverse_factor`.
        importance: Of the rows.
        mean: Of the columns in float.
        seen: Behind packed layers.
    """

    target: Floats
    hessian: Floats
    upper: Floats
    importance: Floats
    mean: Floats
    seen: Floats


@dataclass(frozen=True)
class _Layered:
    """One way to round a weight."""

    levels: npt.NDArray[np.int16]
    steps: Floats
    counts: Floats
    loss: float
    bits: float
    cost: float


def _steps(layer: Layer, view: _View, price: float) -> list[Floats]:
    """Steps at the slope of the price, shape ``(groups, rows)``: ways to try.

    A fine uniform step ``s`` costs ``importance * v * s**2 / 12`` a weight, where ``v`` is what is left of a column's
    variance given those after it, and halving it costs a bit; where one more bit gains just its price,
    ``s**2 = 6 * price / (ln 2 * importance * v)``.
    """
    variance = np.exp(np.log(conditional_variances(view.upper)).mean(axis=1))[:, None]
    largest = np.abs(view.target).max(axis=2)
    each = np.sqrt(6 * price / (log(2) * view.importance * variance))
    each = np.clip(each, largest / MAX_LEVEL, 2 * largest + 1e-8)

    all_alike = np.full_like(each, np.exp(np.log(each).mean()))
    all_alike = np.maximum(all_alike, largest.max() / MAX_LEVEL)
    if layer.one_step:
        return [_positive_half(all_alike)]
    short = view.target.shape[2] <= _FEW_COLUMNS and each.size > 1
    return [_positive_half(each), *([_positive_half(all_alike)] if short else [])]


def _solved(layer: Layer, view: _View, steps: Floats, price: float, costs: BitCosts) -> _Layered:
    """Levels at these steps, in blocks of rows, and steps fitted to them."""
    groups, rows, columns = view.target.shape
    near = Neighbourhood(layer.taps, layer.kernel_width)
    at_once = max(_ROWS_AT_ONCE // max(groups * columns, 1), 1)
    parts: list[Rounded] = []
    local = BitCosts(costs.counts)
    for start in range(0, rows, at_once):
        part = slice(start, start + at_once)
        weights, importance = view.target[:, part], view.importance[:, part]
        problem = Problem(weights, view.hessian, importance, price, near, view.upper)
        parts.append(rounded(problem, steps[:, part], local))
        local = BitCosts(parts[-1].counts)

    levels = np.concatenate([part.levels for part in parts], axis=1)
    one = bool((steps == steps.flat[0]).all()) and steps.size > 1
    fitted = _fitted(view, levels, steps, one=one)
    loss = _loss(view, levels, fitted)
    bits = sum(part.bits for part in parts)
    n_scales = 1 if one else steps.size
    return _Layered(levels, fitted, local.counts, loss, bits, loss + price * (bits + _SCALE_BITS * n_scales))


def _fitted(view: _View, levels: npt.NDArray[np.int16], steps: Floats, *, one: bool) -> Floats:
    """The steps by which these levels come closest to the target: a regression in one variable for each."""
    codes = levels.astype(np.float64)
    weighted = codes @ view.hessian
    up = (weighted * view.target).sum(axis=2) * view.importance
    down = (weighted * codes).sum(axis=2) * view.importance
    if one:
        up, down = np.full_like(up, up.sum()), np.full_like(down, down.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        fitted = up / down
    return _positive_half(np.where(np.isfinite(fitted) & (fitted > 0), fitted, steps))


def _loss(view: _View, levels: npt.NDArray[np.int16], steps: Floats) -> float:
    error = view.target - levels * steps[:, :, None]
    return float((((error @ view.hessian) * error).sum(axis=2) * view.importance).sum())


def _half(values: Array) -> npt.NDArray[np.float64]:
    """Float16 values where they have room in it, as float64."""
    with np.errstate(over="ignore"):
        half = np.asarray(values, np.float16).astype(np.float64)
    return half if np.isfinite(half).all() else np.asarray(values, np.float32).astype(np.float64)


def _positive_half(steps: Floats) -> Floats:
    """Steps in float16 where it holds them with three digits, else in float32."""
    half = _half(steps)
    return half if half.min(initial=1.0) >= 2.0**-14 else np.asarray(steps, np.float32).astype(np.float64)


def _tensor(layer: Layer, found: _Layered, weight: Array) -> QuantizedTensor:
    """Codes in the narrowest width."""
    largest = int(np.abs(found.levels).max(initial=0))
    bits = next(bits for bits in range(2, 9) if code_range(bits=bits, signed=True)[1] >= largest)
    one = layer.one_step or bool((found.steps == found.steps.flat[0]).all())
    scale = np.float32(found.steps.flat[0]) if one else found.steps.reshape(-1).astype(np.float32)
    return QuantizedTensor(
        layer.weight_of(found.levels.astype(np.int8)),
        bits=bits,
        scale=scale,
        channel_axis=layer.channel_axis,
        dtype=weight.dtype.newbyteorder("="),
    )


def _of_rows(layer: Layer, channels: Floats, groups: int, rows: int) -> Floats:
    """The importance of each row; of the gates of a recurrent layer, that of the state they serve."""
    if layer.place.layout is Layout.GATES:
        n_gates = rows // len(channels)
        return np.broadcast_to(np.tile(channels, n_gates), (groups, rows)).copy()
    if layer.node.op_type == "ConvTranspose":
        return np.broadcast_to(channels, (groups, rows)).copy()
    return channels.reshape(groups, rows)


def _looked_up(matrices: Floats, channels: Floats, numbers: Sequence[Array]) -> _View:
    """A table: rows count as often as they are looked up, columns by what they move; nothing mixes."""
    _, rows, columns = matrices.shape
    flat = np.concatenate([np.asarray(call).reshape(-1) for call in numbers]).astype(np.intp)
    seen = np.bincount(flat % rows, minlength=rows) + 0.5
    nothing = np.zeros((1, columns))
    upper = np.diag(1 / np.sqrt(channels))[None]
    return _View(matrices, np.diag(channels)[None], upper, (seen / max(flat.size, 1))[None], nothing, nothing)
