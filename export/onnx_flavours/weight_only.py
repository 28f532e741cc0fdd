"""Flavours `weight-only` and `sparse`: packed codes, expanded at load. Small in the file, float when they run.

Weights equal the decoded ones bit for bit, so that these models compute exactly what flavour `float` does.
"""

from modelpress.export.onnx_flavours.emission import Emission, narrow_codes_note
from modelpress.export.onnx_flavours.stored_weights import StoredWeight, store_weights
from modelpress.export.quantized import QuantizedModel


def weight_only(model: QuantizedModel) -> Emission:
    """Every code at its bit width.

    Raises:
        ModelError: The opset is too old.
    """
    return _stored(model, flavour="weight-only", sparse=False)


def self_expanding_sparse(model: QuantizedModel) -> Emission:
    """A bitmap of the nonzeros and the codes of those alone, for every tensor that this makes smaller.

    Raises:
        ModelError: The opset is too old.
    """
    return _stored(model, flavour="sparse", sparse=True)


def _stored(model: QuantizedModel, *, flavour: str, sparse: bool) -> Emission:
    inputs = {value.name for value in model.graph.graph.input}  # such a weight cannot be computed by a node
    quantized = {name: tensor for name, tensor in model.quantized().items() if tensor.codes.size}
    weights = [StoredWeight.of(name, tensor) for name, tensor in quantized.items() if name not in inputs]
    made = store_weights(model, weights, flavour=flavour, sparse=sparse)
    notes = narrow_codes_note((weight.tensor for weight in weights), becomes="float")

    # a caller may replace a graph's input, so no node can make it
    if len(weights) < len(quantized):
        notes.append(
            f"{len(quantized) - len(weights)} weights are inputs of the graph and stay float: take them out of its "
            "inputs, which also lets the runtime fold them"
        )

    return Emission(made.model, (*notes, *made.notes))
