"""What training minimises: a loss for each task, and what is learnt from a teacher."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from modelpress.benchmarks.measures.metrics import IGNORED
from modelpress.export.errors import InputError
from modelpress.toolkit.data.names import TaskKind
from modelpress.toolkit.data.options import TaskOptions
from modelpress.toolkit.networks.outputs import flat_outputs
from modelpress.toolkit.recipe import TrainingOptions
from modelpress.toolkit.user_code import user_function

Loss = Callable[[Any, Any], Tensor]  # of a network's outputs and the targets; a scalar


@dataclass(frozen=True)
class TaskLoss:
    """The loss of a task.

    Attributes:
        kind: Of the task; it decides how outputs are compared with a teacher's, too.
        own: In place of the task's loss.
        weights: Of the classes, shape ``(classes,)``; None: all alike.
    """

    kind: TaskKind = "classification"
    own: Loss | None = None
    weights: tuple[float, ...] | None = None

    @classmethod
    def of(cls, task: TaskOptions, targets: "np.ndarray[Any, Any] | None" = None) -> "TaskLoss":
        """As a recipe describes it.

        Args:
            task: What is learnt.
            targets: Of the training examples, which balanced weights are counted in; None: all classes count alike.

        Raises:
            InputError: The user's loss cannot be found, or weights do not suit the task.
        """
        own = None if task.loss is None else _own_loss(task.loss)
        return cls(task.kind, own, _weights(task, targets))

    def __call__(self, outputs: Any, targets: Any, *, label_smoothing: float = 0.0) -> Tensor:
        """The loss of a batch, a scalar.

        Raises:
            InputError: Outputs and targets do not fit.
        """
        if self.own is not None:
            return self.own(outputs, targets)
        weights = None
        if self.weights is not None:
            weights = torch.tensor(self.weights, device=targets.device, dtype=_single(outputs).dtype)
        return _LOSSES[self.kind](_single(outputs), targets, weights, label_smoothing)

    def apart(self, outputs: Any, teacher_outputs: Any, temperature: float) -> Tensor:
        """How far outputs are from a teacher's: of whatever the network gives, each output for itself.

        Raises:
            InputError: The teacher gives other outputs.
        """
        ours, theirs = flat_outputs(outputs), flat_outputs(teacher_outputs)
        if [t.shape for t in ours] != [t.shape for t in theirs]:
            shapes = " and ".join(", ".join(str(tuple(t.shape)) for t in each) for each in (ours, theirs))
            raise InputError(f"network and teacher give outputs of shape {shapes}: nothing to distil")
        parts = [self._compared(a.float(), b.float(), temperature) for a, b in zip(ours, theirs, strict=True)]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum()

    def _compared(self, ours: Tensor, theirs: Tensor, temperature: float) -> Tensor:
        if self.softens and (ours.ndim < 2 or ours.shape[-1] == 1):  # one number is no choice among classes
            return _as_numbers(ours, theirs, temperature) / temperature**2
        return _DISTILLED[self.kind](ours, theirs, temperature)

    @property
    def softens(self) -> bool:
        """Whether outputs are compared at a temperature."""
        return self.kind != "regression"


def training_loss(
    outputs: Any,
    targets: Any,
    teacher_outputs: Any,
    options: TrainingOptions,
    task: TaskLoss | None = None,
) -> Tensor:
    """The loss of the task with label smoothing, mixed with distillation where there is a teacher; a scalar.

    ``(1 - a) * loss(targets) + a * apart(network, teacher)`` with ``a = options.distill_weight``; of classes that is
    ``(1 - a) * CE(labels) + a * T**2 * KL(teacher at temperature T || network at temperature T)`` with
    ``T = options.distill_temperature``, in nats. All in float32.

    Args:
        outputs: Logits, shape ``(n, classes)``; what the task takes.
        targets: Labels, shape ``(n,)``, int64; what the task takes.
        teacher_outputs: Shapes of `outputs`; None: no distillation.
        options: Weights of the terms.
        task: What is learnt; None: classes.

    Raises:
        InputError: There is more than one output where one is needed.

    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7; Hinton et al. 2015, arXiv:1503.02531, section 2.

    Example:
        >>> import torch
        >>> round(training_loss(torch.zeros(1, 10), torch.tensor([3]), None, TrainingOptions()).item(), 4)
        2.3026
    """
    task = task or TaskLoss()
    outputs = _in_float32(outputs)
    loss = task(outputs, targets, label_smoothing=options.label_smoothing)
    if teacher_outputs is None:
        return loss

    a, t = options.distill_weight, options.distill_temperature
    apart = task.apart(outputs, teacher_outputs, t)
    # a soft target's gradient shrinks with 1 / T**2, which the factor undoes
    return (1 - a) * loss + (a * t * t * apart if task.softens else a * apart)


def _cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    return F.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing)


def _binary(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Of every label for itself; `weights` are those of its presence."""
    wanted = labels.to(logits.dtype) * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weights)


def _squares(found: Tensor, wanted: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    return F.mse_loss(
        found.reshape(wanted.shape) if found.numel() == wanted.numel() else found, wanted.to(found.dtype)
    )


def _at_every_place(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    return F.cross_entropy(
        logits.flatten(0, 1),
        labels.flatten(),
        weight=weights,
        label_smoothing=smoothing,
        ignore_index=IGNORED,
    )


_LOSSES: Mapping[TaskKind, Callable[[Tensor, Tensor, Tensor | None, float], Tensor]] = MappingProxyType(
    {
        "classification": _cross_entropy,
        "multi-label": _binary,
        "regression": _squares,
        "sequence": _at_every_place,
    }
)


def _as_classes(ours: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """Of the last axis; all others are examples and places."""
    width = ours.shape[-1]
    return F.kl_div(
        F.log_softmax(ours.reshape(-1, width) / temperature, dim=1),
        F.log_softmax(theirs.reshape(-1, width) / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


def _as_labels(ours: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """Each label's probability in the place of its presence."""
    return F.binary_cross_entropy_with_logits(ours / temperature, torch.sigmoid(theirs / temperature))


def _as_numbers(ours: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    return F.mse_loss(ours, theirs)


_DISTILLED: Mapping[TaskKind, Callable[[Tensor, Tensor, float], Tensor]] = MappingProxyType(
    {
        "classification": _as_classes,
        "multi-label": _as_labels,
        "regression": _as_numbers,
        "sequence": _as_classes,
    }
)


def _own_loss(name: str) -> Loss:
    function = user_function(name, "task.loss")

    def loss(outputs: Any, targets: Any) -> Tensor:
        try:
            found = function(outputs, targets)
        except Exception as error:  # whatever the user's code raises
            raise InputError(f"task.loss {name!r} raised {type(error).__name__}: {error}") from error
        if not isinstance(found, Tensor) or found.ndim:
            raise InputError(
                f"task.loss {name!r} gives {type(found).__name__}; expected a tensor with one number"
            )
        return found

    return loss


def _weights(task: TaskOptions, targets: "np.ndarray[Any, Any] | None") -> tuple[float, ...] | None:
    """Of the classes; of labels the weight of their presence."""
    if task.class_weights == "none":
        return None
    if task.kind == "regression":
        raise InputError("task.class_weights: a regression has no classes; leave it at none")
    if task.class_weights != "balanced":
        return task.class_weights
    if targets is None:
        return None
    if task.kind == "multi-label":
        present = np.maximum(targets.sum(axis=0), 1)
        return tuple(map(float, (len(targets) - present) / present))
    counts = np.bincount(targets[targets != IGNORED].ravel())
    return tuple(float(counts.sum() / (len(counts) * max(count, 1))) for count in counts)


def _in_float32(outputs: Any) -> Any:
    """bfloat16 has too few digits for sums over classes."""
    return outputs.float() if isinstance(outputs, Tensor) and outputs.is_floating_point() else outputs


def _single(outputs: Any) -> Tensor:
    if not isinstance(outputs, Tensor):
        raise InputError(
            f"the network's output is a {type(outputs).__name__}; the losses of tasks take one tensor: give a loss of "
            "your own"
        )
    return outputs
