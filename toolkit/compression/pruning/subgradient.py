"""The L1 penalty as a term of the loss, by its subgradient: weights become small, and none exactly zero.

It is what frameworks do when a penalty is added to the loss, and is here to be compared with the proximal step of
`proximal.py`, which has the same minimum and reaches its zeros. The subgradient pushes every weight by the same
amount, and past zero as soon as the weight is smaller than that: Duchi and Singer 2009, "Efficient online and batch
learning using forward backward splitting", section 1.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from modelpress.toolkit.compression.pruning.proximal import penalty_at
from modelpress.toolkit.recipe import PruneOptions
from modelpress.toolkit.training.rules import TrainingRule

SMALL = 0.01  # of the largest magnitude in the layer


class SubgradientPenalty(TrainingRule):
    """Strength times the sum of all magnitudes, added to the loss; nothing is set to zero, and nothing is held.

    Args:
        weights: Parameters, by layer name.
        options: Strength and warm-up of the penalty; it does not end at a sparsity, since none is reached.
    """

    def __init__(self, weights: dict[str, Tensor], options: PruneOptions) -> None:
        self._weights, self._options = weights, options
        device = next(iter(weights.values())).device
        self._strength = torch.tensor(penalty_at(options, 0.0), device=device)

    def penalty(self) -> Tensor:
        """The L1 norm of all weights, times the strength of the moment."""
        norms = [weight.abs().sum() for weight in self._weights.values()]
        return self._strength * torch.stack(norms).sum()

    def after_step(self, learning_rate: float, progress: float) -> None:
        """The strength of the next step."""
        self._strength.fill_(penalty_at(self._options, progress))

    def sparsity(self) -> float:
        """Share of the weights that are exactly zero."""
        zeros = torch.stack([(weight == 0).sum() for weight in self._weights.values()]).sum()
        return float(zeros) / sum(weight.numel() for weight in self._weights.values())

    def masks(self) -> dict[str, Tensor]:
        """True where a weight is not zero."""
        return {name: weight.detach() != 0 for name, weight in self._weights.items()}

    def state(self) -> Mapping[str, Tensor]:
        """The strength that a training goes on with."""
        return {"strength": self._strength}


def count_small(weights: Mapping[str, Tensor]) -> int:
    """How many weights are not zero, but at most `SMALL` of the largest in their layer.

    Example:
        >>> count_small({"layer": torch.tensor([1.0, -0.01, 0.0, 0.5])})
        1
    """
    counts = [
        ((weight != 0) & (weight.abs() <= SMALL * weight.abs().max())).sum() for weight in weights.values()
    ]
    return int(torch.stack(counts).sum())
