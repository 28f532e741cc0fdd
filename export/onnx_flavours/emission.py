"""What a flavour makes of a model."""

from collections.abc import Iterable
from dataclasses import dataclass

from modelpress.export.grids import MAX_BITS
from modelpress.export.quantized import QuantizedModel, QuantizedTensor


@dataclass(frozen=True)
class Emission:
    """A model whose tensors are written as they are, decoded if need be.

    Attributes:
        model: Graph and tensors.
        notes: What its user should know, in sentences.
    """

    model: QuantizedModel
    notes: tuple[str, ...] = ()


def narrow_codes_note(tensors: Iterable[QuantizedTensor], *, becomes: str) -> list[str]:
    """What there is to say of codes that no convolution of ONNX Runtime takes as they are.

    Example:
        >>> import numpy as np
        >>> narrow_codes_note([QuantizedTensor(np.ones((2, 2), np.int8), 4, np.float32(1))], becomes="int8")
        ['codes of 4 bits become int8 at load: ONNX Runtime has no convolution with weights of fewer than 8 bits']
    """
    widths = sorted({tensor.bits for tensor in tensors} - {MAX_BITS})
    if not widths:
        return []

    named = f"{', '.join(map(str, widths[:-1]))} and {widths[-1]}" if len(widths) > 1 else str(widths[0])
    return [
        f"codes of {named} bits become {becomes} at load: ONNX Runtime has no convolution with weights of fewer than "
        "8 bits"
    ]
