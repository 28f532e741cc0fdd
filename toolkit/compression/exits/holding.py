"""A network that stays as it is while the heads of its exits are trained."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from modelpress.toolkit.networks.early_exits import EarlyExits
from modelpress.toolkit.training.rules import Moment, TrainingRule


class Held(TrainingRule):
    """Keeps everything but the heads in evaluation mode: statistics of batch norm do not move, nothing is dropped.

    Args:
        network: Whose.
        exits: Of it.
    """

    def __init__(self, network: nn.Module, exits: EarlyExits) -> None:
        learning = set(exits.modules())
        self._held = [module for module in network.modules() if module not in learning]

    def before_step(self, moment: Moment) -> bool:
        """The loop puts all modules into training mode at the start of an epoch."""
        for module in self._held:
            module.training = False
        return False


@contextmanager
def only_heads_learn(network: nn.Module, exits: EarlyExits) -> Iterator[None]:
    """For a while, no parameter but those of the heads has a gradient."""
    own = set(exits.parameters())
    held = [p for p in network.parameters() if p not in own and p.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)
