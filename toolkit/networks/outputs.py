"""What a network gives."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from modelpress.export.errors import ModelError


def flat_outputs(output: Any) -> list[Tensor]:
    """The tensors of an output, in order.

    Raises:
        ModelError: It holds something else.
    """
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, Mapping) else output
    if not isinstance(values, str) and hasattr(values, "__iter__"):
        return [tensor for value in values for tensor in flat_outputs(value)]
    raise ModelError(f"the network's output holds a {type(output).__name__}; expected tensors")
