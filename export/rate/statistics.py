"""What a layer's weights are multiplied with: means and covariances of its inputs, before and after packing.

A layer that comes after packed ones sees other inputs than in float. The weights that come closest to the float
output from the inputs that it will really see are a linear regression; the covariance of these inputs says how errors
of its weights work together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from modelpress.export.graphs.operators import Layout
from modelpress.export.rate.layers import Array, Layer, attributes_of

Floats = npt.NDArray[np.float64]
Single = npt.NDArray[np.float32]
_ROWS_PER_COLUMN = 40  # samples that estimate a covariance well
_LEAST_ROWS = 16_384


@dataclass
class Statistics:
    """Sums over samples of the columns of a layer, shape ``(groups, samples, columns)`` each time.

    Attributes:
        n: Samples so far.
        mean: Sum of the inputs in float, shape ``(groups, columns)``.
        seen: Sum of the inputs behind packed layers.
        square: Of these with themselves, shape ``(groups, columns, columns)``.
        cross: Of the float ones (first axis) with these (second).
    """

    n: int = 0
    mean: Floats | float = 0.0
    seen: Floats | float = 0.0
    square: Floats = field(default_factory=lambda: np.zeros(0))
    cross: Floats = field(default_factory=lambda: np.zeros(0))
    _origins: tuple[Single, Single] | None = (
        None  # sums are taken from here, or variances would drown in means
    )

    def add(self, in_float: Single, packed: Single) -> None:
        """Samples of both networks on the same inputs."""
        same = in_float is packed
        if self._origins is None:
            first, second = (values.mean(axis=1, keepdims=True) for values in (in_float, packed))
            self._origins = first, second
            groups, _, columns = packed.shape
            self.square, self.cross = (np.zeros((groups, columns, columns)) for _ in range(2))

        self.n += packed.shape[1]
        packed = packed - self._origins[1]
        in_float = packed if same else in_float - self._origins[0]
        self.mean = self.mean + in_float.sum(axis=1, dtype=np.float64)
        self.seen = self.seen + packed.sum(axis=1, dtype=np.float64)
        # in place: each of these may take more memory than the weight itself
        square = packed.swapaxes(1, 2) @ packed
        self.square += square
        self.cross += square if same else in_float.swapaxes(1, 2) @ packed

    def centred(self, *, free_bias: bool) -> tuple[Floats, Floats, Floats, Floats]:
        """Means in float and as seen, covariance as seen, and cross-covariance; the sums are used up.

        Args:
            free_bias: Whether a bias takes up what is constant; else means are 0, and count as part of the variance.
        """
        assert self._origins is not None  # something has been added
        beyond, beyond_seen = np.asarray(self.mean) / self.n, np.asarray(self.seen) / self.n
        mean, seen = beyond + self._origins[0][:, 0], beyond_seen + self._origins[1][:, 0]
        square, cross = self.square, self.cross
        square /= self.n
        cross /= self.n
        square -= _outer(beyond_seen, beyond_seen)
        cross -= _outer(beyond, beyond_seen)
        if free_bias:
            return mean, seen, square, cross
        square += _outer(seen, seen)
        cross += _outer(mean, seen)
        nothing = np.zeros_like(mean)
        return nothing, nothing, square, cross


def _outer(left: Floats, right: Floats) -> Floats:
    return np.asarray(left[:, :, None] * right[:, None, :], np.float64)


@dataclass
class Sampler:
    """Which samples of a layer's inputs are taken: as many as its covariance needs, the same of both networks.

    Attributes:
        n_calls: How often the model is called.
    """

    n_calls: int
    seed: int = 0
    _call: int = field(default=0, init=False)

    def chosen(self, n: int, n_columns: int) -> npt.NDArray[np.intp]:
        """Ascending numbers of samples, of `n` in this call."""
        most = max(_ROWS_PER_COLUMN * n_columns, _LEAST_ROWS) // self.n_calls + 1
        self._call += 1
        if n <= most:
            return np.arange(n)
        return np.sort(np.random.default_rng((self.seed, self._call)).choice(n, most, replace=False))


def samples(layer: Layer, values: Sequence[Array], sampler: Sampler) -> list[Single]:
    """What the matrices of a layer are multiplied with, shape ``(groups, samples, columns)``, of several networks.

    Args:
        layer: Not a table.
        values: Its input in one call, or of a recurrent weight the states that the layer made, one a network.
        sampler: Chooses.
    """
    take = {Layout.KERNEL: _patches, Layout.GATES: _steps}.get(layer.place.layout, _vectors)
    first = take(layer, values[0], sampler, None)
    return [first[0]] + [
        first[0] if other is values[0] else take(layer, other, sampler, first[1])[0] for other in values[1:]
    ]


Chosen = npt.NDArray[np.intp]


def _vectors(layer: Layer, value: Array, sampler: Sampler, chosen: Chosen | None) -> tuple[Single, Chosen]:
    """Of a product of matrices."""
    value = np.moveaxis(value, -2, -1) if layer.is_left else value
    flat = value.reshape(-1, value.shape[-1])
    chosen = sampler.chosen(len(flat), flat.shape[1]) if chosen is None else chosen
    return np.asarray(flat[chosen], np.float32)[None], chosen


def _steps(layer: Layer, value: Array, sampler: Sampler, chosen: Chosen | None) -> tuple[Single, Chosen]:
    """Of a recurrent layer: inputs ``(steps, batch, columns)``, or states ``(steps, groups, batch, columns)``."""
    groups = layer.shape[0]
    if not layer.is_recurrent:
        flat = np.broadcast_to(
            value.reshape(1, -1, value.shape[-1]), (groups, value.size // value.shape[-1], value.shape[-1])
        )
    else:
        flat = value.transpose(1, 0, 2, 3).reshape(groups, -1, value.shape[-1])
    chosen = sampler.chosen(flat.shape[1], flat.shape[2]) if chosen is None else chosen
    return np.asarray(flat[:, chosen], np.float32), chosen


def _patches(layer: Layer, value: Array, sampler: Sampler, chosen: Chosen | None) -> tuple[Single, Chosen]:
    """Of a convolution: what lies under its kernel; of a transposed one its input, alike for every tap."""
    batch, channels = value.shape[:2]
    if layer.node.op_type == "ConvTranspose":
        flat = np.moveaxis(value, 1, -1).reshape(-1, channels)
        chosen = sampler.chosen(len(flat), channels) if chosen is None else chosen
        picked = np.asarray(flat[chosen], np.float32)
        return np.broadcast_to(picked, (prod(layer.shape[2:]), *picked.shape)), chosen

    windows = _windows(layer, np.asarray(value, np.float32))  # (batch, channels, *positions, *kernel)
    n_space = len(layer.shape) - 2
    positions = windows.shape[2 : 2 + n_space]
    n_columns = prod(layer.shape[1:])
    chosen = sampler.chosen(batch * prod(positions), n_columns) if chosen is None else chosen
    image, *place = np.unravel_index(chosen, (batch, *positions))
    picked = np.moveaxis(windows, 1, 1 + n_space)[(image, *place)]  # (samples, channels, *kernel)
    return picked.reshape(len(chosen), layer.n_groups, n_columns).swapaxes(0, 1), chosen


def _windows(layer: Layer, value: Single) -> Single:
    """A view of the patches under a kernel."""
    attributes = attributes_of(layer.node)
    kernel = layer.shape[2:]
    n = len(kernel)
    strides = attributes.get("strides", [1] * n)
    dilations = attributes.get("dilations", [1] * n)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]

    pads = _pads(attributes, value.shape[2:], spans, strides)
    value = np.pad(value, [(0, 0), (0, 0), *pads])
    windows = sliding_window_view(value, spans, axis=tuple(range(2, 2 + n)))
    every = (slice(None, None, s) for s in strides)
    inside = (slice(None, None, d) for d in dilations)
    return windows[(slice(None), slice(None), *every, *inside)]


def _pads(
    attributes: dict[str, object], sizes: Sequence[int], spans: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """Zeros before and after each axis of space."""
    automatic = attributes.get("auto_pad", b"NOTSET")
    if automatic in (b"SAME_UPPER", b"SAME_LOWER"):
        needed = [
            max((-(-size // stride) - 1) * stride + span - size, 0)
            for size, span, stride in zip(sizes, spans, strides, strict=True)
        ]
        halves = [(n // 2, n - n // 2) for n in needed]
        return halves if automatic == b"SAME_UPPER" else [(b, a) for a, b in halves]

    given = attributes.get("pads") if automatic == b"NOTSET" else None
    flat = list(given) if isinstance(given, list) else [0] * (2 * len(sizes))
    return [(flat[k], flat[k + len(sizes)]) for k in range(len(sizes))]
