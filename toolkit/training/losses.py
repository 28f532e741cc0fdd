"""What training minimises."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from modelpress.export.errors import InputError
from modelpress.toolkit.recipe import TrainingOptions

Loss = Callable[[Any, Any], Tensor]  # of a network's outputs and the targets; a scalar


def training_loss(
    outputs: Any, targets: Any, teacher_outputs: Any, options: TrainingOptions, own: Loss | None = None
) -> Tensor:
    """Cross-entropy with label smoothing, mixed with distillation where there is a teacher; a scalar, in nats.

    ``(1 - a) * CE(labels) + a * T**2 * KL(teacher at temperature T || network at temperature T)`` with
    ``a = options.distill_weight`` and ``T = options.distill_temperature``. All in float32.

    Args:
        outputs: Logits, shape ``(n, classes)``; anything, where there is a loss of the user's own.
        targets: Labels, shape ``(n,)``, int64; what `own` takes.
        teacher_outputs: Shape of `outputs`; None: no distillation.
        options: Weights of the terms.
        own: In place of cross-entropy.

    Raises:
        InputError: There is more than one output where a table of logits is needed.

    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7; Hinton et al. 2015, arXiv:1503.02531, section 2.

    Example:
        >>> import torch
        >>> round(training_loss(torch.zeros(1, 10), torch.tensor([3]), None, TrainingOptions()).item(), 4)
        2.3026
    """
    outputs = _in_float32(outputs)
    if own is not None:
        loss = own(outputs, targets)
    else:
        loss = F.cross_entropy(_logits(outputs), targets, label_smoothing=options.label_smoothing)
    if teacher_outputs is None:
        return loss

    a, t = options.distill_weight, options.distill_temperature
    apart = F.kl_div(
        F.log_softmax(_logits(outputs) / t, dim=1),
        F.log_softmax(_logits(_in_float32(teacher_outputs)) / t, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    # a soft target's gradient shrinks with 1 / T**2, which the factor undoes
    return (1 - a) * loss + a * t * t * apart


def _in_float32(outputs: Any) -> Any:
    """bfloat16 has too few digits for sums over classes."""
    return outputs.float() if isinstance(outputs, Tensor) and outputs.is_floating_point() else outputs


def _logits(outputs: Any) -> Tensor:
    if not isinstance(outputs, Tensor):
        raise InputError(
            f"the network's output is a {type(outputs).__name__}; cross-entropy and distillation take one tensor of "
            "logits: give a loss of your own, and leave distill_weight at 0"
        )
    return outputs
