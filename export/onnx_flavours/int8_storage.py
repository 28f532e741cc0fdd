"""Flavours `int8` and `int8-sparse`: the same integer arithmetic, from weights stored in two ways.

`int8` stores a byte for every weight of an integer operator. `int8-sparse` stores the packed codes of the artifact and
lets the graph compute the bytes from them at load: small in the file, fast when it runs, the same result bit for bit.
Weights of operators that stay in float (recurrent ones, embeddings) it expands from their codes too, as `sparse` does.
"""

from collections.abc import Collection, Mapping

from modelpress.export.onnx_flavours.emission import Emission, narrow_codes_note
from modelpress.export.onnx_flavours.int8 import Int8Plan, plan
from modelpress.export.onnx_flavours.int8_weights import Int8Weight
from modelpress.export.onnx_flavours.stored_weights import StoredWeight, store_weights
from modelpress.export.post_training.calibration import ActivationRanges
from modelpress.export.quantized import QuantizedModel, QuantizedTensor

_BITS = 8


def int8_dense(
    model: QuantizedModel, ranges: ActivationRanges, reduce_range: bool, exclude: Collection[str] = ()
) -> Emission:
    """A byte for every weight.

    Raises:
        ModelError: The opset is too old, nothing computes in integers, or a range is missing.
    """
    planned = plan(model, ranges, reduce_range=reduce_range, exclude=exclude)
    return Emission(with_bytes(planned, planned.weights), tuple(planned.notes))


def int8_sparse(
    model: QuantizedModel, ranges: ActivationRanges, reduce_range: bool, exclude: Collection[str] = ()
) -> Emission:
    """Packed codes, or a bitmap and the codes of the nonzeros; a byte where neither is smaller.

    Raises:
        ModelError: As for `int8_dense`.
    """
    planned = plan(model, ranges, reduce_range=reduce_range, exclude=exclude)
    packed = {
        name: _stored(weight.source, weight)
        for name, weight in planned.weights.items()
        if isinstance(weight.source, QuantizedTensor)
    }
    # widths near eight bits with few zeros take more packed than as they are
    packed = {name: stored for name, stored in packed.items() if _is_smaller(stored)}
    plain = {name: weight for name, weight in planned.weights.items() if name not in packed}
    in_float = _expanded_to_float(model, planned)
    emission = store_weights(
        with_bytes(planned, plain), [*packed.values(), *in_float], flavour="int8-sparse", sparse=True
    )
    narrow = narrow_codes_note((stored.tensor for stored in packed.values()), becomes="int8")

    return Emission(emission.model, (*narrow, *planned.notes, *emission.notes))


def _expanded_to_float(model: QuantizedModel, planned: Int8Plan) -> list[StoredWeight]:
    """The codes of what float operators read, under the names that they read it by."""
    inputs = {value.name for value in planned.graph.graph.input}  # such a weight cannot be computed by a node
    quantized = model.quantized().items()
    return [
        StoredWeight.of(name, tensor)
        for name, tensor in quantized
        if name in planned.tensors and name not in inputs and tensor.codes.size
    ]


def with_bytes(planned: Int8Plan, weights: Mapping[str, Int8Weight]) -> QuantizedModel:
    """A planned model in which a byte is stored for each of these weights."""
    stored = {name: weight.codes() for name, weight in weights.items()}
    return QuantizedModel(planned.graph, {**planned.tensors, **stored})


def _stored(source: QuantizedTensor, weight: Int8Weight) -> StoredWeight:
    addend = None if source.offset is None else weight.addend
    return StoredWeight(
        weight.name, source, weight.multiplier, addend, channel_axis=weight.channel_axis, integer=True
    )


def _is_smaller(stored: StoredWeight) -> bool:
    sizes = (stored.stored_bits(sparse=True), stored.stored_bits(sparse=False))
    return min(size for size in sizes if size is not None) < _BITS * stored.n_weights
