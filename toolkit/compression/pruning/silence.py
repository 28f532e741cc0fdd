"""What is added to removed channels, or ends a removed branch, goes with them: else constants would come through."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.pruning.coupling import Coupling
from modelpress.toolkit.training.rules import Moment, TrainingRule


def silence(network: nn.Module, coupling: Coupling, masks: Mapping[str, Tensor]) -> None:
    """Set to zero, in place, what would be added to channels that masks remove altogether: they are zero then."""
    _fill(network, _silent(network, coupling, masks))


class Silence(TrainingRule):
    """Removed channels stay zero in a training.

    Args:
        network: With its masks.
        coupling: Of its channels.
    """

    def __init__(self, network: CompressedNetwork, coupling: Coupling) -> None:
        self.coupling = coupling
        self._network = network
        self.renew()

    def begin(self, moment: Moment) -> None:
        """Take the masks as they are now."""
        self.renew()

    def renew(self) -> None:
        """Take the masks as they are now."""
        self._where = _silent(self._network.network, self.coupling, self._network.masks)
        _fill(self._network.network, self._where)

    def after_step(self, learning_rate: float, progress: float) -> None:
        """Undo what the step added."""
        _fill(self._network.network, self._where)


def _silent(network: nn.Module, coupling: Coupling, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By parameter, where it is to be zero."""
    parameters = dict(network.named_parameters())
    gone = coupling.removed(masks)
    removed = torch.tensor(sorted(gone), dtype=torch.int64)
    found = {
        name: torch.isin(groups, removed).reshape(parameters[name].shape)
        for name, groups in coupling.shifts.items()
        if name in parameters
    }
    for branch in coupling.branches:
        if branch.groups <= gone:
            found |= {name: torch.ones_like(parameters[name], dtype=torch.bool) for name in branch.shifts}
    return {name: where.to(parameters[name].device) for name, where in found.items() if where.any()}


@torch.no_grad()
def _fill(network: nn.Module, where: Mapping[str, Tensor]) -> None:
    for name, silent in where.items():
        network.get_parameter(name).masked_fill_(silent, 0.0)
