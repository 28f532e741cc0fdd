"""Early stopping: the best weights so far, by a figure on the validation examples.

Source: Prechelt 1998, "Early stopping – but when?".
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from modelpress.benchmarks.measures.metrics import Metric


class Patience:
    """The best state of a network in training.

    Args:
        network: Its parameters and buffers are kept.
        epochs: Without a better figure, after which no more is waited.
    """

    def __init__(self, network: nn.Module, epochs: int) -> None:
        self._network, self._epochs = network, epochs
        self.values: dict[str, Tensor] = {}
        self._best, self._figure, self._waited = -1, 0.0, 0

    def look(self, epoch: int, figure: float, metric: Metric) -> None:
        """An epoch is over, with that figure."""
        if self._best >= 0 and not metric.better(figure, self._figure):
            self._waited += 1
            return
        self._best, self._figure, self._waited = epoch, figure, 0
        self.values = {name: value.detach().clone() for name, value in self._network.state_dict().items()}

    def restart(self) -> None:
        """The network has become another: weights from before are none of it."""
        self.values, self._best, self._waited = {}, -1, 0

    def is_over(self) -> bool:
        """Whether enough epochs were waited for a better one."""
        return self._waited >= self._epochs

    @torch.no_grad()
    def restore(self) -> int:
        """Give the network its best weights; returns the number of their epoch, from 0."""
        if self.values:
            self._network.load_state_dict(self.values)
        return self._best

    def facts(self) -> dict[str, Any]:
        """What a file keeps besides the weights."""
        return {"best": self._best, "figure": self._figure, "waited": self._waited}

    def load(self, values: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Go on from what a file kept."""
        own = self._network.state_dict()
        self.values = {name: value.to(own[name].device) for name, value in values.items()}
        self._best, self._figure, self._waited = (
            int(facts["best"]),
            float(facts["figure"]),
            int(facts["waited"]),
        )
