"""Exact zeros among the weights that really run."""

import numpy as np
import numpy.typing as npt
import onnx

from export.graph import constants, initializers

# operators with a weight, and the inputs where it may be
_WEIGHTED = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (1,), "MatMul": (1, 0)}


def layer_weights(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.generic]]:
    """Constant weights of all convolutions and linear layers, by name, in graph order.

    Weights that other nodes compute (dequantized ones, say) are not found.
    """
    arrays = {**initializers(model), **constants(model)}
    used = [
        node.input[position]
        for node in model.graph.node
        for position in _WEIGHTED.get(node.op_type, ())
        if position < len(node.input)
    ]
    return {name: arrays[name] for name in dict.fromkeys(used) if name in arrays}


def sparsity_of(weight: npt.NDArray[np.generic]) -> float:
    """Fraction of entries that are exactly zero.

    Example:
        >>> sparsity_of(np.array([0.0, 1.0, -0.0, 1e-30]))
        0.5
    """
    return float(1.0 - np.count_nonzero(weight) / weight.size) if weight.size else 0.0


def total_sparsity(weights: dict[str, npt.NDArray[np.generic]]) -> float | None:
    """Fraction of exact zeros over all layers together; None where no weights were found."""
    n_weights = sum(w.size for w in weights.values())
    return float(1.0 - sum(np.count_nonzero(w) for w in weights.values()) / n_weights) if n_weights else None
