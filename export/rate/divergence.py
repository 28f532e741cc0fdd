"""How far a packed model's outputs are from those in float, on the same inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from modelpress.export.rate.activations import Activations
from modelpress.export.rate.sensitivity import OutputScale


@dataclass(frozen=True)
class Divergence:
    """Of all outputs on all calls.

    Attributes:
        error: Root of the mean squared error over the variance of the outputs.
        changed: Share of inputs whose largest output is another one; None where no output is a table of classes.
    """

    error: float
    changed: float | None

    @property
    def points(self) -> float:
        """Percentage points of accuracy that can have been lost at most; NaN where there are no classes."""
        return float("nan") if self.changed is None else 100 * self.changed


def divergence(before: Sequence[Activations], after: Sequence[Activations]) -> Divergence:
    """Compare outputs call by call.

    Example:
        >>> first = [{"y": np.array([[1.0, 0.0], [0.0, 1.0]])}]
        >>> divergence(first, [{"y": np.array([[1.0, 0.0], [1.0, 0.0]])}]).changed
        0.5
    """
    scale = OutputScale.of(before)
    weights = [sum(value.size for value in call.values()) for call in before]
    moved = [scale.moved(a, b, per_entry=False)[0] for a, b in zip(before, after, strict=True)]
    error = sqrt(float(np.average(moved, weights=weights)) / len(before[0]))

    tables = [name for name, value in before[0].items() if value.ndim >= 2 and value.shape[-1] > 1]
    if not tables:
        return Divergence(error, None)
    name = tables[0]
    differing = [a[name].argmax(-1) != b[name].argmax(-1) for a, b in zip(before, after, strict=True)]
    return Divergence(error, float(np.concatenate([d.reshape(-1) for d in differing]).mean()))
