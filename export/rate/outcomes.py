"""What rounding at a price came to, layer by layer."""

from dataclasses import dataclass


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
