"""The loss of a network with early exits: that of the last one, and a share of every other's."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from modelpress.toolkit.recipe import ExitOptions
from modelpress.toolkit.training.losses import TaskLoss


@dataclass(frozen=True)
class ExitLoss(TaskLoss):
    """``loss(last) + weight * sum over early exits of ((1 - a) * loss(exit) + a * T**2 * KL(last || exit))``.

    The last exit is a teacher: no gradient flows into it from the comparison.

    Attributes:
        weight: Of every early exit's loss.
        distill_last: ``a``, the share of it that compares with the last exit.
        temperature: ``T``, at which they are compared.

    Source: Zhang et al. 2019, arXiv:1905.08094 (self-distillation), section 3, without its loss on features.
    """

    weight: float = 1.0
    distill_last: float = 0.0
    temperature: float = 1.0

    @classmethod
    def around(cls, task: TaskLoss, options: ExitOptions) -> "ExitLoss":
        """A task's loss at every exit, as a recipe weighs them."""
        return cls(
            task.kind,
            task.own,
            task.weights,
            weight=options.weight,
            distill_last=options.distill_last,
            temperature=options.distill_temperature,
        )

    def __call__(self, outputs: Any, targets: Any, *, label_smoothing: float = 0.0) -> Tensor:
        """The loss of a batch, a scalar; of one output alone that of the task."""
        last, early = _exits(outputs)
        loss = super().__call__(last, targets, label_smoothing=label_smoothing)
        a, t = self.distill_last, self.temperature
        for logits in early:
            own = super().__call__(logits, targets, label_smoothing=label_smoothing)
            apart = super().apart(logits, last.detach(), t)
            loss = loss + self.weight * ((1 - a) * own + a * t * t * apart)
        return loss

    def apart(self, outputs: Any, teacher_outputs: Any, temperature: float) -> Tensor:
        """How far all exits are from a teacher's last one, early ones by their weight."""
        last, early = _exits(outputs)
        taught, _ = _exits(teacher_outputs)
        parts = super().apart(last, taught, temperature)
        for logits in early:
            parts = parts + self.weight * super().apart(logits, taught, temperature)
        return parts


def _exits(outputs: Any) -> tuple[Tensor, list[Tensor]]:
    """The last exit and the early ones, in float32."""
    if isinstance(outputs, Tensor):
        return outputs.float(), []
    last, *early = outputs
    return last.float(), [logits.float() for logits in early]
