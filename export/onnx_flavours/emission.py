"""What a flavour makes of a model."""

from dataclasses import dataclass

from export.quantized import QuantizedModel


@dataclass(frozen=True)
class Emission:
    """A model whose tensors are written as they are, decoded if need be.

    Attributes:
        model: Graph and tensors.
        notes: What its user should know, in sentences.
    """

    model: QuantizedModel
    notes: tuple[str, ...] = ()
