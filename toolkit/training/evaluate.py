"""Outputs, loss and the figure of merit in PyTorch, always in float32."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from modelpress.benchmarks.measures.metrics import Metric, Targets, value_of
from modelpress.benchmarks.measures.outputs import Outputs
from modelpress.export.errors import InputError
from modelpress.toolkit.data.data_set import DataSet, Split
from modelpress.toolkit.networks.inputs import Inputs
from modelpress.toolkit.networks.outputs import flat_outputs
from modelpress.toolkit.training.device import Device
from modelpress.toolkit.training.examples import in_order, placed
from modelpress.toolkit.training.losses import TaskLoss

_BATCH = 500
_BATCH_BYTES = 64 << 20  # of input


class Ordered(Protocol):
    """Examples that can be gone through."""

    def in_order(self, batch: int) -> Iterator[tuple[Any, Any]]:
        """All inputs and targets once, unchanged."""


@dataclass(frozen=True)
class Quality:
    """How well a network does on some examples.

    Attributes:
        loss: Mean, of the task; cross-entropy is in nats.
        top1: The figure of merit; of classes, the fraction whose largest logit is the right one.
    """

    loss: float
    top1: float


@dataclass(frozen=True)
class Judged:
    """Examples that a network is judged by.

    Attributes:
        examples: Where the network can be called with them.
        targets: Of all of them.
        metric: Of outputs and targets.
        loss: Of the task.
        batch: Examples at a time.
    """

    examples: Ordered
    targets: Targets
    metric: Metric
    loss: TaskLoss
    batch: int = _BATCH

    @classmethod
    def of(cls, split: Split, data: DataSet, device: torch.device) -> "Judged":
        """Some examples of a data set, by the metric of its task."""
        each = max(split.n_bytes // max(len(split), 1), 1)
        batch = min(_BATCH, max(_BATCH_BYTES // each, 1))
        examples = _InOrder(split, data, device)
        return cls(examples, split.all_targets, data.metric, TaskLoss.of(data.task), batch)

    def __call__(self, network: nn.Module) -> float:
        """The figure of merit; the network is left in evaluation mode."""
        return value_of(self.metric, predict(network, self.examples, batch=self.batch), self.targets)


class _InOrder:
    """Examples of a data set, placed on a device when they are first asked for."""

    def __init__(self, split: Split, data: DataSet, device: torch.device) -> None:
        self._placed = placed(split, data, device)

    def in_order(self, batch: int) -> Iterator[tuple[Any, Any]]:
        """See `Ordered`."""
        return in_order(self._placed, batch)


@dataclass(frozen=True)
class OneCall:
    """Examples that are one call."""

    inputs: Inputs

    def in_order(self, batch: int) -> Iterator[tuple[Any, Any]]:
        """See `Ordered`."""
        yield self.inputs, None


@torch.no_grad()
def predict(network: nn.Module, examples: Ordered, *, batch: int = _BATCH) -> Outputs:
    """Outputs for all examples in order: the only one as it is, several by the names that they have in files.

    The network is left in evaluation mode.

    Raises:
        InputError: The network cannot be called with them.
    """
    network.eval()

    parts: list[list[Tensor]] = []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # full float32 on GPUs too
        for inputs, _ in examples.in_order(batch):
            parts.append(flat_outputs(_called(network, _call_of(inputs))))
    joined = [torch.cat(values).float().cpu().numpy() for values in zip(*parts, strict=True)]
    return joined[0] if len(joined) == 1 else {f"output{k}": values for k, values in enumerate(joined)}


def n_outputs_of(network: nn.Module, inputs: Inputs) -> int:
    """Numbers in a row of what the network gives, its first output where there are several: the classes.

    The network is left in evaluation mode.

    Raises:
        InputError: The network cannot be called.
    """
    there = next((parameter.device for parameter in network.parameters()), "cpu")
    outputs = predict(network, OneCall(inputs.on(there)))
    first = outputs if isinstance(outputs, np.ndarray) else next(iter(outputs.values()))
    return first.shape[-1]


def _call_of(inputs: Any) -> Inputs:
    return inputs if isinstance(inputs, Inputs) else Inputs.of(inputs)


def _called(network: nn.Module, inputs: Inputs) -> Any:
    try:
        return inputs.call(network)
    except Exception as error:  # whatever the user's forward raises
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs.tensors())
        raise InputError(
            f"the network cannot be called with the data, of shape {shapes}: {type(error).__name__}: {error}"
        ) from error


def validation_figure(network: nn.Module, data: DataSet, device: Device) -> float | None:
    """The figure of merit on the held-out split; None without one."""
    if not len(data.validation):
        return None
    return Judged.of(data.validation, data, device.torch_device)(network)


def loss_and_figure(network: nn.Module, judged: Judged) -> Quality:
    """Both from one pass; the loss is averaged in float64, so that small differences survive."""
    outputs = predict(network, judged.examples, batch=judged.batch)
    loss = judged.loss(_tensors(outputs, torch.float64), _tensors(judged.targets, torch.float64))
    return Quality(float(loss), value_of(judged.metric, outputs, judged.targets))


def _tensors(values: Outputs, kind: torch.dtype) -> Any:
    if isinstance(values, Mapping):
        return {name: _tensors(array, kind) for name, array in values.items()}
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.to(kind) if tensor.is_floating_point() else tensor
