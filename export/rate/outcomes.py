"""What rounding at a price came to, layer by layer; and how a file tells of it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite

import onnx

from modelpress.export.graphs.parts import metadata
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, Tensor

METADATA = "modelpress.price"


@dataclass(frozen=True)
class LayerOutcome:
    """One weight.

    Attributes:
        name: Of the weight.
        operator: Who reads it.
        n_elements: Of the weight.
        bits: Of its codes.
        bits_per_weight: What its codes are estimated to take in the file.
        loss: Estimated share of the loss of the whole model.
        sparsity: Fraction of exact zeros.
    """

    name: str
    operator: str
    n_elements: int
    bits: int
    bits_per_weight: float
    loss: float
    sparsity: float


def price_metadata(price: float, losses: Iterable[float]) -> dict[str, str]:
    """What a file says of its price, and of the losses of its quantized tensors in their order.

    Example:
        >>> price_metadata(1e-7, [0.00123, 0.5])
        {'modelpress.price': '{"price":1e-07,"loss":[0.0012,0.5]}'}
    """
    facts = {"price": float(f"{price:.3g}"), "loss": [float(f"{loss:.1e}") for loss in losses]}
    return {METADATA: json.dumps(facts, separators=(",", ":"))}


def with_price(model: QuantizedModel, price: float, losses: Mapping[str, float]) -> QuantizedModel:
    """The model with its price and the loss of each layer in its metadata, in the order of its tensors."""
    in_order = [losses.get(name, 0.0) for name, t in model.tensors.items() if isinstance(t, QuantizedTensor)]
    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    onnx.helper.set_model_props(graph, {**metadata(model.graph), **price_metadata(price, in_order)})
    return QuantizedModel(graph, model.tensors)


def losses_of(properties: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """The losses of a file by tensor; none where it does not say.

    Args:
        properties: Metadata of its graph.
        tensors: All of them, in their order.
    """
    coded = (name for name, tensor in tensors.items() if isinstance(tensor, QuantizedTensor))
    return dict(zip(coded, losses_in(properties), strict=False))


def losses_in(properties: Mapping[str, str]) -> list[float]:
    """The losses of the quantized tensors of a file, in their order; none where it does not say, or is damaged.

    Example:
        >>> losses_in({"modelpress.price": '{"price":1e-07,"loss":[0.0012,0.5]}'}), losses_in({})
        ([0.0012, 0.5], [])
    """
    try:
        losses = [float(loss) for loss in json.loads(properties.get(METADATA, "{}")).get("loss", [])]
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return []
    return losses if all(isfinite(loss) for loss in losses) else []
