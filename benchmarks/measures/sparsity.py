"""Exact zeros among the weights that really run."""

import numpy as np
import numpy.typing as npt


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
