"""A layer that is rounded; and as arrays, in which it outlasts an interruption."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelpress.export.quantized import QuantizedTensor
from modelpress.export.rate.layers import Array, Layer
from modelpress.export.rate.outcomes import LayerOutcome
from modelpress.export.rate.statistics import Floats


@dataclass(frozen=True)
class DoneLayer:
    """A layer that is rounded.

    Attributes:
        tensor: Its weight.
        bias: What becomes of its bias; None where it stays.
        counts: What the coder has counted by then.
        bits_per_weight: Of its codes, estimated.
        loss: Estimated.
    """

    tensor: QuantizedTensor
    bias: Array | None
    counts: Floats
    bits_per_weight: float
    loss: float

    def as_arrays(self) -> dict[str, Array]:
        """For a file."""
        facts = np.array([self.tensor.bits, self.bits_per_weight, self.loss], np.float64)
        arrays = {"codes": self.tensor.codes, "scale": np.asarray(self.tensor.scale), "counts": self.counts}
        return {**arrays, "facts": facts, **({} if self.bias is None else {"bias": self.bias})}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Array], layer: Layer, dtype: np.dtype[Any]) -> "DoneLayer | None":
        """Undo `as_arrays`; None of another shape.

        Raises:
            KeyError: Something is missing.
            ValueError: Something is damaged.
        """
        if arrays["codes"].shape != layer.shape:
            return None
        bits, bits_per_weight, loss = arrays["facts"].tolist()
        scale = arrays["scale"] if arrays["scale"].ndim else np.float32(arrays["scale"])
        tensor = QuantizedTensor(
            arrays["codes"],
            bits=int(bits),
            scale=scale,
            channel_axis=layer.channel_axis,
            dtype=dtype.newbyteorder("="),
        )
        return cls(tensor, arrays.get("bias"), arrays["counts"], bits_per_weight, loss)

    def outcome(self, layer: Layer) -> LayerOutcome:
        """For whoever asks."""
        return LayerOutcome(
            layer.weight,
            layer.node.op_type,
            self.tensor.codes.size,
            self.tensor.bits,
            self.bits_per_weight,
            self.loss,
            float(np.mean(self.tensor.codes == 0)),
        )
