"""What may act on a network between the steps of its training."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Moment:
    """Where a training stands before a step; all counts start at 0.

    Attributes:
        epoch: Number of complete epochs.
        step: Number of steps done in this epoch.
        steps_per_epoch: In every epoch.
    """

    epoch: int
    step: int
    steps_per_epoch: int


class TrainingRule:
    """Does nothing at every occasion; rules override what they need.

    What a rule keeps follows from the network's state and the moment, or is in its `state`, so that a resumed training
    goes on as before.
    """

    def begin(self, moment: Moment) -> None:
        """The training starts, or goes on, at this moment."""

    def before_step(self, moment: Moment) -> bool:
        """The next step is about to be computed; true if the network has become another, so that averages restart."""
        return False

    def penalty(self) -> Tensor | None:
        """Added to the loss of a step, in nats; reads tensors that change in place alone."""
        return None

    def after_step(self, learning_rate: float, progress: float) -> None:
        """A step with that rate is done, at that fraction of all steps."""

    def sparsity(self) -> float | None:
        """Share of its weights at exactly zero; None if the rule counts none."""
        return None

    def close_epoch(self) -> Mapping[str, float]:
        """An epoch is done; what is to be recorded of it."""
        return {}

    def state(self) -> Mapping[str, Tensor]:
        """Tensors that are kept with an unfinished training, and filled again when it goes on."""
        return {}
