"""What rounding at a price came to, layer by layer; and how a file tells of it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite

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


def losses_in(metadata: Mapping[str, str]) -> list[float]:
    """The losses of the quantized tensors of a file, in their order; none where it does not say, or is damaged.

    Example:
        >>> losses_in({"modelpress.price": '{"price":1e-07,"loss":[0.0012,0.5]}'}), losses_in({})
        ([0.0012, 0.5], [])
    """
    try:
        losses = [float(loss) for loss in json.loads(metadata.get(METADATA, "{}")).get("loss", [])]
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return []
    return losses if all(isfinite(loss) for loss in losses) else []
