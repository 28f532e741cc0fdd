"""Pruning in steps while training: the sparsity rises on a schedule, and every step chooses the masks anew.

Source: linear: Han et al. 2015, arXiv:1506.02626, section 3.4 (prune, retrain, repeat); cubic: Zhu and Gupta 2017,
"To prune, or not to prune", arXiv:1710.01878, eq. (1).
"""

from collections.abc import Iterable

import torch

from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.pruning.granularity import choose_masks
from modelpress.toolkit.compression.pruning.silence import Silence
from modelpress.toolkit.recipe import PruneOptions
from modelpress.toolkit.training.rules import Moment, TrainingRule


def sparsity_at(options: PruneOptions, done: float) -> float:
    """Share of weights to remove when a fraction `done` of the schedule has passed, the present step included.

    Example:
        >>> sparsity_at(PruneOptions(sparsity=0.7, schedule="linear"), 0.1)  # the first of ten steps
        0.07
        >>> sparsity_at(PruneOptions(sparsity=0.8, schedule="cubic"), 0.5)
        0.7
    """
    risen = 1 - (1 - done) ** 3 if options.schedule == "cubic" else done
    return round(options.sparsity * risen, 12)  # 0.7 * 0.1 is 0.06999…


class PruningSchedule(TrainingRule):
    """Masks that grow while a network is trained.

    Weights removed in one step stay removed if ``options.hold``; otherwise they start again from zero and may grow back
    until the last step, whose masks are held for good.

    Args:
        network: Has a mask for every one of `layers`.
        layers: Names of the layers that are pruned.
        options: Schedule, sparsity, granularity.
        silence: Of removed channels; told of new masks.
    """

    def __init__(
        self,
        network: CompressedNetwork,
        layers: Iterable[str],
        options: PruneOptions,
        silence: Silence | None = None,
    ) -> None:
        self._network, self._layers, self._options = network, list(layers), options
        self._silence = silence

    def before_step(self, moment: Moment) -> bool:
        """Prune where the schedule says so."""
        per_epoch = self._options.updates_per_epoch
        if moment.epoch >= self._options.epochs:
            return False

        starts = [k * moment.steps_per_epoch // per_epoch for k in range(per_epoch)]
        # several where epochs are very short
        due = [k for k, start in enumerate(starts) if start == moment.step]
        if due:
            number = moment.epoch * per_epoch + due[-1] + 1
            total = self._options.epochs * per_epoch
            self._prune(sparsity_at(self._options, number / total), last=number == total)
        return False

    def sparsity(self) -> float:
        """Share of the layers' weights at exactly zero in the forward pass."""
        weights = [self._network.masked(name) for name in self._layers]
        return float(sum((w == 0).sum() for w in weights)) / sum(w.numel() for w in weights)

    @torch.no_grad()
    def _prune(self, sparsity: float, *, last: bool) -> None:
        weights = {name: self._network.dense_weight(name) for name in self._layers}
        coupling = None if self._silence is None else self._silence.coupling
        masks = choose_masks(
            weights, self._options, sparsity=sparsity, kept=self._network.masks, coupling=coupling
        )

        for name, mask in masks.items():
            weights[name].mul_(mask)
        if self._options.hold or last:
            self._network.set_masks(masks)
            if self._silence is not None:
                self._silence.renew()
