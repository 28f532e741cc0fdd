"""Weights as packed integer codes in an ONNX graph, and the standard operators that expand them at load.

Two forms: *dense*, every code at its bit width; *sparse*, a bitmap of the nonzeros and the codes of those alone.
All weights of a model share one stream per form and width, so that a tensor adds a handful of nodes only; models
of many millions of weights use several streams, to bound the memory of the expansion.

A runtime that folds constants (every ONNX Runtime) computes the weights once, when it loads the model. The result
equals `StoredWeight.values` bit for bit: each step is one float32 operation in both.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import ModelError
from modelpress.export.graphs.parts import opset_of
from modelpress.export.onnx_flavours.bit_fields import pack_fields, unpack_fields
from modelpress.export.onnx_flavours.constant_nodes import MIN_OPSET, ConstantNodes, in_front, unused_names
from modelpress.export.onnx_flavours.emission import Emission
from modelpress.export.quantized import FloatArray, QuantizedModel, QuantizedTensor

STREAM_WEIGHTS = 1 << 22  # expanding takes about 30 bytes per weight of a stream
_MANY_WEIGHTS = 12_500_000  # 50 MB of float32: loading becomes noticeable
Parameter = FloatArray | np.float32


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """A weight and the arithmetic that turns its codes into the numbers a runtime needs.

    The value of an entry is ``(code * multiplier + addend) * factor``, rounded to float32 at each step, or 0
    outside the support; with `integer` it is then rounded, half to even, and cast to int8.

    Attributes:
        name: Of the tensor that the graph reads.
        tensor: The codes.
        multiplier: Shape ``()`` or ``(out,)``.
        addend: Likewise, or None for none.
        factor: Shape ``(out,)`` or None.
        channel_axis: Which axis of the weight the parameters of shape ``(out,)`` run along.
        integer: Whether the values are int8.
    """

    name: str
    tensor: QuantizedTensor
    multiplier: Parameter
    addend: Parameter | None = None
    factor: FloatArray | None = None
    channel_axis: int = 0
    integer: bool = False

    @classmethod
    def of(cls, name: str, tensor: QuantizedTensor) -> "StoredWeight":
        """The weight that `QuantizedTensor.dequantize` gives."""
        return cls(name, tensor, tensor.scale, tensor.offset, tensor.channel_scale, tensor.channel_axis)

    @property
    def n_weights(self) -> int:
        """Number of entries."""
        return self.tensor.codes.size

    @cached_property
    def n_nonzero(self) -> int:
        """Number of entries that are no exact zeros."""
        return int(np.count_nonzero(self.tensor.nonzero))

    @property
    def is_per_tensor(self) -> bool:
        """Whether code and multiplier alone tell the value, whatever the channel (but for the factor)."""
        return np.ndim(self.multiplier) == 0 and np.ndim(0 if self.addend is None else self.addend) == 0

    @property
    def symbols(self) -> npt.NDArray[np.uint8]:
        """The codes from 0 upwards, flat."""
        low, _ = self.tensor.code_range
        return (self.tensor.codes.reshape(-1) - np.int16(low)).astype(np.uint8)

    @cached_property
    def zero_symbol(self) -> int | None:
        """The symbol of exact zeros where all entries are stored; None if every symbol has another meaning."""
        if self.tensor.offset is None:
            return -self.tensor.code_range[0]
        used = np.bincount(self.symbols[self.tensor.nonzero.reshape(-1)], minlength=1 << self.tensor.bits)
        spare = np.flatnonzero(used == 0)
        return int(spare[0]) if spare.size else None

    def stored_bits(self, *, sparse: bool) -> int | None:
        """Bits of the codes in one of the forms; None where it cannot hold them."""
        if sparse:
            return self.n_weights + self.n_nonzero * self.tensor.bits
        can_hold = self.n_nonzero == self.n_weights or self.zero_symbol is not None
        return self.n_weights * self.tensor.bits if can_hold else None


def store_weights(
    model: QuantizedModel, weights: list[StoredWeight], *, flavour: str, sparse: bool
) -> Emission:
    """A model whose graph expands its weights from packed codes.

    Args:
        model: Its tensors of the names of `weights`, if any, are replaced.
        weights: What to store.
        flavour: Named in messages.
        sparse: Use the sparse form wherever it is smaller; otherwise only where the dense one cannot hold a
            tensor (all codes in use, and exact zeros besides).

    Raises:
        ModelError: The opset is too old.
    """
    opset = opset_of(model.graph)
    if opset < MIN_OPSET:
        raise ModelError(
            f"the model uses opset {opset}; flavour {flavour} needs {MIN_OPSET} or newer: convert the model, or use "
            "flavour float"
        )

    replaced = {weight.name for weight in weights}
    nodes = ConstantNodes(unused_names(model.graph, (*model.tensors, *replaced)))
    for group in _groups(weights, sparse=sparse):
        group.emit(nodes)

    kept = {name: tensor for name, tensor in model.tensors.items() if name not in replaced}
    stored = QuantizedModel(in_front(model.graph, nodes.nodes), {**kept, **nodes.tensors})
    return Emission(stored, tuple(_notes(weights)))


def _notes(weights: list[StoredWeight]) -> Iterator[str]:
    n_weights = sum(weight.n_weights for weight in weights)
    if n_weights > _MANY_WEIGHTS:
        yield (
            f"{n_weights:,} weights are expanded whenever the model is loaded, which takes a second or more and memory "
            "of several times their size; flavour float loads faster"
        )


@dataclass(frozen=True)
class _Group:
    """Weights of one form that share a stream."""

    weights: list[StoredWeight]
    sparse: bool

    def emit(self, nodes: ConstantNodes) -> None:
        if not self.sparse:
            _emit_dense(nodes, self.weights)
        elif self.weights[0].is_per_tensor:
            _emit_sparse_per_tensor(nodes, self.weights)
        else:
            _emit_sparse_per_channel(nodes, self.weights)


def _groups(weights: list[StoredWeight], *, sparse: bool) -> Iterator[_Group]:
    """Streams of at most `STREAM_WEIGHTS` entries, single larger tensors apart."""
    open_groups: dict[tuple[bool, bool, bool], list[StoredWeight]] = defaultdict(list)
    for weight in weights:
        is_sparse = _prefers_sparse(weight, sparse=sparse)
        key = is_sparse, weight.is_per_tensor, weight.integer
        if (
            sum(w.n_weights for w in open_groups[key]) + weight.n_weights > STREAM_WEIGHTS
            and open_groups[key]
        ):
            yield _Group(open_groups.pop(key), is_sparse)
        open_groups[key].append(weight)

    for (is_sparse, _, _), group in open_groups.items():
        yield _Group(group, is_sparse)


def _prefers_sparse(weight: StoredWeight, *, sparse: bool) -> bool:
    dense_bits = weight.stored_bits(sparse=False)
    sparse_bits = weight.stored_bits(sparse=True)
    return dense_bits is None or (sparse and sparse_bits is not None and sparse_bits < dense_bits)


def _emit_dense(nodes: ConstantNodes, weights: list[StoredWeight]) -> None:
    """Every code at its width."""
    streams = [(w, w.symbols if w.n_nonzero == w.n_weights else _with_zero_symbol(w)) for w in weights]
    for weight, flat in _code_streams(nodes, streams):
        codes = nodes.reshape(flat, weight.tensor.shape)
        zero = (weight.zero_symbol or 0) + weight.tensor.code_range[0]
        _finish(nodes, _shaped_value(nodes, codes, weight, partial(_differs, nodes, codes, zero)), weight)


def _differs(nodes: ConstantNodes, codes: str, zero: int) -> str:
    return nodes.node("Not", nodes.node("Equal", codes, nodes.constant(zero, np.float32)))


def _with_zero_symbol(weight: StoredWeight) -> npt.NDArray[np.uint8]:
    kept = weight.tensor.nonzero.reshape(-1)
    return np.where(kept, weight.symbols, np.uint8(weight.zero_symbol or 0))


def _emit_sparse_per_tensor(nodes: ConstantNodes, weights: list[StoredWeight]) -> None:
    """The values of the nonzeros first, then their places."""
    values = [_affine(nodes, codes, weight) for weight, codes in _nonzero_codes(nodes, weights)]
    table = nodes.node("Concat", nodes.constant([0], np.float32), *values, axis=0)
    is_integer = weights[0].integer  # of the whole group
    if is_integer:
        table = nodes.cast(nodes.node("Round", table), np.int8)

    places = _Places(nodes, weights)
    for index, (weight, flat) in enumerate(zip(weights, places.fill(table), strict=True)):
        value = nodes.reshape(flat, weight.tensor.shape)
        value = _times_factor(nodes, value, weight, partial(places.kept, index))
        _finish(nodes, value, weight, is_rounded=is_integer)


def _emit_sparse_per_channel(nodes: ConstantNodes, weights: list[StoredWeight]) -> None:
    """The places of the codes first: what a code is worth depends on its channel."""
    codes = _nonzero_stream(nodes, weights)
    table = nodes.node("Concat", nodes.constant([0], np.float32), *codes, axis=0)
    places = _Places(nodes, weights)
    for index, (weight, flat) in enumerate(zip(weights, places.fill(table), strict=True)):
        shaped = nodes.reshape(flat, weight.tensor.shape)
        _finish(nodes, _shaped_value(nodes, shaped, weight, partial(places.kept, index)), weight)


def _nonzero_codes(nodes: ConstantNodes, weights: list[StoredWeight]) -> Iterator[tuple[StoredWeight, str]]:
    return _code_streams(nodes, [(w, _nonzero_symbols(w)) for w in weights])


def _nonzero_stream(nodes: ConstantNodes, weights: list[StoredWeight]) -> list[str]:
    """The codes of all nonzeros in their order, in pieces; in one piece where all weights are of one kind."""
    kinds = {_kind_of_codes(weight) for weight in weights}
    if len(kinds) > 1:
        return [codes for _, codes in _nonzero_codes(nodes, weights)]

    return [_codes(nodes, [_nonzero_symbols(weight) for weight in weights], *kinds.pop())[0]]


def _nonzero_symbols(weight: StoredWeight) -> npt.NDArray[np.uint8]:
    return weight.symbols[weight.tensor.nonzero.reshape(-1)]


def _kind_of_codes(weight: StoredWeight) -> tuple[int, int]:
    """Width, and lowest code."""
    return weight.tensor.bits, weight.tensor.code_range[0]


def _codes(
    nodes: ConstantNodes, symbols: list[npt.NDArray[np.uint8]], bits: int, low: int
) -> tuple[str, int]:
    """A stream of codes as a float32 vector, and its length: a few entries more than there are symbols."""
    codes, length = unpack_fields(nodes, pack_fields(np.concatenate(symbols), bits=bits), bits=bits)
    return nodes.node("Add", codes, nodes.constant(low, np.float32)) if low else codes, length


def _code_streams(
    nodes: ConstantNodes, parts: list[tuple[StoredWeight, npt.NDArray[np.uint8]]]
) -> Iterator[tuple[StoredWeight, str]]:
    """One stream per width and sign; gives the codes of each weight as a float32 vector, in the order of `parts`."""
    streams = defaultdict(list)
    for index, (weight, _) in enumerate(parts):
        streams[_kind_of_codes(weight)].append(index)

    pieces: dict[int, str] = {}
    for (bits, low), indices in streams.items():
        symbols = [parts[index][1] for index in indices]
        codes, length = _codes(nodes, symbols, bits, low)
        split = nodes.split(codes, [s.size for s in symbols], total=length)
        pieces.update(zip(indices, split, strict=True))

    return ((weight, pieces[index]) for index, (weight, _) in enumerate(parts))


class _Places:
    """Where the nonzeros of some weights are, as a bitmap of all of them one after the other."""

    def __init__(self, nodes: ConstantNodes, weights: list[StoredWeight]) -> None:
        self._nodes, self._weights = nodes, weights
        kept = np.concatenate([w.tensor.nonzero.reshape(-1) for w in weights])
        self._bits, self._length = unpack_fields(nodes, np.packbits(kept), bits=1)
        self._masks: list[str] = []
        self._kept: dict[int, str] = {}

    def fill(self, table: str) -> list[str]:
        """Entries 1, 2, ... of `table` at the places of the nonzeros, entry 0 at all others; a vector per weight."""
        bits = self._nodes.cast(self._bits, np.int32)
        rank = self._nodes.node("CumSum", bits, self._nodes.constant(0, np.int64))
        index = self._nodes.node("Mul", rank, bits)
        # for single entries ONNX Runtime's GatherElements is ten times as fast as its Gather
        return self._split(self._nodes.node("GatherElements", table, index, axis=0))

    def kept(self, index: int) -> str:
        """True where a weight is no exact zero, in its shape."""
        if index not in self._kept:
            self._masks = self._masks or self._split(self._bits)
            shaped = self._nodes.reshape(self._masks[index], self._weights[index].tensor.shape)
            self._kept[index] = self._nodes.cast(shaped, np.bool_)
        return self._kept[index]

    def _split(self, name: str) -> list[str]:
        return self._nodes.split(name, [weight.n_weights for weight in self._weights], total=self._length)


def _affine(nodes: ConstantNodes, codes: str, weight: StoredWeight) -> str:
    """Code times multiplier plus addend."""
    value = nodes.node("Mul", codes, _along_channels(nodes, weight, weight.multiplier))
    if weight.addend is None:
        return value
    return nodes.node("Add", value, _along_channels(nodes, weight, weight.addend))


def _times_factor(nodes: ConstantNodes, value: str, weight: StoredWeight, kept: Callable[[], str]) -> str:
    """The value of each entry times the factor of its channel; exact zeros do not become -0.0."""
    if weight.factor is None:
        return value
    factor = _along_channels(nodes, weight, weight.factor)
    if weight.n_nonzero < weight.n_weights and (weight.factor < 0).any():
        factor = nodes.node("Where", kept(), factor, nodes.constant(1, np.float32))
    return nodes.node("Mul", value, factor)


def _shaped_value(nodes: ConstantNodes, codes: str, weight: StoredWeight, kept: Callable[[], str]) -> str:
    """What codes in the weight's shape are worth, 0 where they are not kept."""
    value = _affine(nodes, codes, weight)
    if weight.n_nonzero < weight.n_weights and weight.tensor.offset is not None:
        value = nodes.node("Where", kept(), value, nodes.constant(0, np.float32))
    return _times_factor(nodes, value, weight, kept)


def _along_channels(nodes: ConstantNodes, weight: StoredWeight, parameter: Parameter) -> str:
    """A constant that broadcasts along the channel axis; axes of length 1 in front are left out."""
    array = np.asarray(parameter, np.float32)
    if array.ndim:
        array = array.reshape(-1, *[1] * (len(weight.tensor.shape) - 1 - weight.channel_axis))
    return nodes.constant(array)


def _finish(nodes: ConstantNodes, value: str, weight: StoredWeight, *, is_rounded: bool = False) -> None:
    """Give the result its type and the weight's name."""
    if weight.integer and not is_rounded:
        nodes.cast(nodes.node("Round", value), np.int8, output=weight.name)
    elif not weight.integer and np.dtype(weight.tensor.dtype) != np.float32:
        nodes.cast(value, weight.tensor.dtype, output=weight.name)
    else:
        nodes.rename_last(value, weight.name)
