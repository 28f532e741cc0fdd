"""What may act on a network between the steps of its training."""

from dataclasses import dataclass


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

    A rule keeps nothing but what follows from the network's state and the moment, so that a resumed training goes on
    as before.
    """

    def begin(self, moment: Moment) -> None:
        """The training starts, or goes on, at this moment."""

    def before_step(self, moment: Moment) -> bool:
        """The next step is about to be computed; true if the network has become another, so that averages restart."""
        return False

    def after_step(self, learning_rate: float, progress: float) -> None:
        """A step with that rate is done, at that fraction of all steps."""

    def sparsity(self) -> float | None:
        """Share of its weights at exactly zero; None if the rule counts none."""
        return None
