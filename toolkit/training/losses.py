"""What training minimises."""

from torch import Tensor
from torch.nn import functional as F

from modelpress.toolkit.recipe import TrainingOptions


def training_loss(
    logits: Tensor, labels: Tensor, teacher_logits: Tensor | None, options: TrainingOptions
) -> Tensor:
    """Cross-entropy with label smoothing, mixed with distillation where there is a teacher; a scalar, in nats.

    ``(1 - a) * CE(labels) + a * T**2 * KL(teacher at temperature T || network at temperature T)`` with
    ``a = options.distill_weight`` and ``T = options.distill_temperature``.

    Args:
        logits: Shape ``(n, classes)``.
        labels: Shape ``(n,)``, int64.
        teacher_logits: Shape of `logits`; None: cross-entropy alone.
        options: Weights of the terms.

    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7; Hinton et al. 2015, arXiv:1503.02531, section 2.

    Example:
        >>> import torch
        >>> round(training_loss(torch.zeros(1, 10), torch.tensor([3]), None, TrainingOptions()).item(), 4)
        2.3026
    """
    loss = F.cross_entropy(logits, labels, label_smoothing=options.label_smoothing)
    if teacher_logits is None:
        return loss

    a, t = options.distill_weight, options.distill_temperature
    apart = F.kl_div(
        F.log_softmax(logits / t, dim=1),
        F.log_softmax(teacher_logits / t, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    # a soft target's gradient shrinks with 1 / T**2, which the factor undoes
    return (1 - a) * loss + a * t * t * apart
