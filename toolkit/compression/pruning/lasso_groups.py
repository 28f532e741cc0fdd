"""Channels that a group lasso shrinks as one, over all layers that share them.

Weights count in units of the root mean square that their layer had at the start: a batch norm gives every layer a
scale of its own, which says nothing about its channels. Without these units the penalty takes the layers of small
weights, as a rule the widest ones, and leaves all others. Penalties relative to what weights were: Zou 2006, "The
Adaptive Lasso and Its Oracle Properties", eq. (4).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from modelpress.toolkit.compression.pruning.channel_groups import row_squares, unit_of
from modelpress.toolkit.compression.pruning.coupling import Coupling
from modelpress.toolkit.sparse_regression.prox import block_factor

_STAYS = 0  # the number of channels that no penalty acts on


@dataclass(frozen=True)
class ChannelGroups:
    """Groups of output channels, numbered from 1 on.

    Attributes:
        rows: By layer, shape ``(out,)``: the group of each channel; 0 where it has to stay.
        sizes: Shape ``(groups + 1,)``: weights of each.
        units: By layer, what one is: the root mean square of its weights at the start.
        shifts: Parameters that make channels of these groups non-zero, each with the groups of its entries.
    """

    rows: Mapping[str, Tensor]
    sizes: Tensor
    units: Mapping[str, float]
    shifts: tuple[tuple[nn.Parameter, Tensor], ...] = field(default=())

    @classmethod
    def single(cls, weights: Mapping[str, Tensor]) -> "ChannelGroups":
        """Each channel a group of its own."""
        rows, first = {}, _STAYS + 1
        for name, weight in weights.items():
            rows[name] = torch.arange(first, first + len(weight), device=weight.device)
            first += len(weight)
        return cls(rows, _sizes(weights, rows, first), _units(weights))

    @classmethod
    def coupled(
        cls, weights: Mapping[str, Tensor], coupling: Coupling, network: nn.Module
    ) -> "ChannelGroups":
        """The groups of a coupling that lie in these layers altogether.

        Args:
            weights: By layer.
            coupling: Of the channels of `network`.
            network: Has the parameters that the coupling names.
        """
        numbers = {group: k for k, group in enumerate(sorted(coupling.removable(weights)), start=_STAYS + 1)}
        parameters = dict(network.named_parameters())

        def numbered(groups: Tensor, like: Tensor) -> Tensor:
            return torch.tensor([numbers.get(int(g), _STAYS) for g in groups], device=like.device)

        rows = {name: numbered(coupling.layers[name], weight) for name, weight in weights.items()}
        shifts = [(parameters[name], own) for name, own in coupling.shifts.items() if name in parameters]
        return cls(
            rows,
            _sizes(weights, rows, len(numbers) + 1),
            _units(weights),
            tuple((parameter, numbered(own, parameter)) for parameter, own in shifts),
        )

    def shrunk(self, weights: Mapping[str, Tensor], threshold: float, n_zeros: int) -> dict[str, Tensor]:
        """Block soft threshold of all groups, weighted by the root of their sizes so that they compare.

        Of the groups, ranked by their root mean square, only so many of the smallest may become zero as it takes to
        remove `n_zeros` weights: the last step removes at most a group more than asked for.
        """
        squares = self._squares(weights)
        order = torch.argsort(squares / self.sizes, stable=True)
        order = order[order != _STAYS]
        smaller = torch.zeros_like(self.sizes)  # weights in all smaller groups
        smaller[order] = torch.cumsum(self.sizes[order], dim=0) - self.sizes[order]

        factor = block_factor(squares.sqrt(), threshold * self.sizes.sqrt())
        factor = torch.where((factor == 0) & (squares > 0) & (smaller >= n_zeros), 1.0, factor)
        factor[_STAYS] = 1.0
        return {
            name: weight * _over_rows(factor[self.rows[name]], weight) for name, weight in weights.items()
        }

    @torch.no_grad()
    def silence(self, weights: Mapping[str, Tensor]) -> None:
        """Set to zero what is added to channels of groups that are zero."""
        alive = self._squares(weights) > 0
        alive[_STAYS] = True
        for parameter, own in self.shifts:
            parameter.mul_(alive[own].reshape(parameter.shape))

    def _squares(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Sum of squares of each group, in units of the layers."""
        total = torch.zeros_like(self.sizes)
        for name, weight in weights.items():
            squares = weight.detach().flatten(1).square().sum(dim=1).to(total.dtype)
            total.index_add_(0, self.rows[name], squares / self.units[name] ** 2)
        return total


def _over_rows(factor: Tensor, weight: Tensor) -> Tensor:
    return factor.to(weight.dtype).reshape(-1, *[1] * (weight.ndim - 1))


def _units(weights: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: unit_of(weight, row_squares(weight, None)) for name, weight in weights.items()}


def _sizes(weights: Mapping[str, Tensor], rows: Mapping[str, Tensor], n: int) -> Tensor:
    """Weights of each of `n` groups, at least one, so that a mean can be taken."""
    first = next(iter(weights.values()))
    sizes = torch.zeros(n, dtype=torch.float64, device=first.device)
    for name, weight in weights.items():
        sizes.index_add_(0, rows[name], torch.full_like(rows[name], weight[0].numel(), dtype=torch.float64))
    return sizes.clamp(min=1)
