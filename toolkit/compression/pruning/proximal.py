"""Sparsity by a penalty: after every optimiser step a proximal step sets small weights exactly to zero.

The penalty rises linearly, acts until the asked-for share of the weights is zero, and ends there: from then on the
zeros are held and the other weights are free of its bias. Proximal stochastic gradient descent: Duchi and Singer
2009, "Efficient online and batch learning using forward backward splitting", eq. (3).
"""

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from modelpress.toolkit.compression.pruning.lasso_groups import ChannelGroups
from modelpress.toolkit.recipe import PruneOptions
from modelpress.toolkit.sparse_regression.prox import (
    largest,
    soft_threshold,
    trimmed_soft_threshold,
)
from modelpress.toolkit.training.rules import Moment, TrainingRule

_SHORTEST = 1e-12  # a length that is none


class ProximalStep(TrainingRule):
    """The proximal step of one training, for the weights of all pruned layers together.

    Args:
        weights: Parameters, by layer name; changed in place.
        options: Method, strength and warm-up of the penalty, and the sparsity at which it ends.
        groups: Of channels, for a group lasso; without them each channel is a group of its own.
        steady: Layers in front of batch norms: they keep their length while the penalty acts, so that steps stay as
            large beside their weights as they were, and small channels shrink relative to large ones.
    """

    def __init__(
        self,
        weights: dict[str, Tensor],
        options: PruneOptions,
        groups: ChannelGroups | None = None,
        *,
        steady: Collection[str] = (),
    ) -> None:
        self._weights, self._options = weights, options
        self._groups = ChannelGroups.single(weights) if groups is None else groups
        self._n_weights = sum(w.numel() for w in weights.values())
        self._n_zeros = round(options.sparsity * self._n_weights)
        self._lengths = {name: w.detach().norm() for name, w in weights.items() if name in steady}
        self._hold()

    def begin(self, moment: Moment) -> None:
        """Take the weights as they are now."""
        self._hold()

    @torch.no_grad()
    def _hold(self) -> None:
        """Take the weights as they are now: zeros are held if enough of them are there already."""
        self._kept = {name: w != 0 for name, w in self._weights.items()}
        self._held = self._count_removed() >= self._n_zeros

    @torch.no_grad()
    def after_step(self, learning_rate: float, progress: float) -> None:
        """One proximal step, or the zeros restored once there are enough; no value leaves the device.

        Args:
            learning_rate: Of the optimiser step just done; the threshold is the penalty times it.
            progress: Fraction of all steps done.
        """
        threshold = learning_rate * penalty_at(self._options, progress)
        for name, shrunk in self._shrunk(threshold).items():
            weight, kept = self._weights[name], self._kept[name]
            weight.copy_(
                torch.where(self._held, torch.where(kept, weight, 0.0), self._steadied(name, shrunk))
            )
            self._kept[name] = weight != 0
        self._groups.silence(self._weights)
        self._held = self._held | (self._count_removed() >= self._n_zeros)

    def _steadied(self, name: str, shrunk: Tensor) -> Tensor:
        """The weight in the length that its layer has to keep."""
        if name not in self._lengths:
            return shrunk
        return shrunk * (self._lengths[name] / shrunk.norm().clamp(min=_SHORTEST)).clamp(min=1.0)

    def sparsity(self) -> float:
        """Share of the weights that are exactly zero."""
        return float(sum((w == 0).sum() for w in self._weights.values())) / self._n_weights

    def masks(self) -> dict[str, Tensor]:
        """True where a weight is not zero."""
        return {name: w.detach() != 0 for name, w in self._weights.items()}

    def has_enough_zeros(self) -> bool:
        """Whether the penalty has ended."""
        return bool(self._held)

    def _count_removed(self) -> Tensor:
        """Zero weights that count towards the sparsity: for group lasso, those in channels that are zero."""
        if self._options.method == "group-lasso":
            counts = [(w == 0).flatten(1).all(dim=1).sum() * w[0].numel() for w in self._weights.values()]
        else:
            counts = [(w == 0).sum() for w in self._weights.values()]
        return torch.stack(counts).sum()

    def _shrunk(self, threshold: float) -> dict[str, Tensor]:
        if self._options.method == "group-lasso":
            return self._groups.shrunk(self._weights, threshold, self._n_zeros)
        flat = torch.cat([w.flatten() for w in self._weights.values()])  # all layers in one ranking
        shrunk = _SHRINK[self._options.method](flat, threshold, self._n_weights - self._n_zeros)
        parts = shrunk.split([w.numel() for w in self._weights.values()])
        return {name: part.view_as(w) for (name, w), part in zip(self._weights.items(), parts, strict=True)}


def _shrink_all(weights: Tensor, threshold: float, k: int) -> Tensor:
    """Soft threshold, but the k largest never become zero: the last step removes no more than asked for."""
    shrunk = soft_threshold(weights, threshold)
    return torch.where(largest(weights, k) & (shrunk == 0), weights, shrunk)


_SHRINK: dict[str, Callable[[Tensor, float, int], Tensor]] = {
    "proximal-l1": _shrink_all,
    "trimmed-l1": trimmed_soft_threshold,
}


def penalty_at(options: PruneOptions, progress: float) -> float:
    """Strength of the penalty after a fraction `progress` of all steps: a linear rise, then constant.

    Example:
        >>> penalty_at(PruneOptions(penalty=0.2, penalty_warmup=0.5), 0.25)
        0.1
    """
    rise = progress / options.penalty_warmup if options.penalty_warmup else 1.0
    return options.penalty * min(1.0, rise)
