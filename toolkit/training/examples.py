"""Examples where a network can be called with them: on its device, or streamed by threads that read ahead."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from modelpress.export.post_training.pixels import normalisation_factors
from modelpress.toolkit.data.data_set import DataSet, Split, unit_of
from modelpress.toolkit.data.rows import Index, Rows
from modelpress.toolkit.networks.inputs import Inputs

Batch = tuple[Inputs, Any]
_AHEAD = 4  # batches that are read before they are asked for
_READERS = 2  # batches read at a time; rows of one may be decoded by more threads


class Examples(Protocol):
    """Some examples of a data set; all targets are those of one task."""

    def __len__(self) -> int: ...

    def batches(self, order: Iterable[Index]) -> Iterator[Batch]:
        """Network input and targets for each of these sets of numbers, on the device."""


def in_order(examples: Examples, batch: int) -> Iterator[Batch]:
    """All examples once, unchanged."""
    n = len(examples)
    return examples.batches(np.arange(start, min(start + batch, n)) for start in range(0, n, batch))


def placed(split: Split, data: DataSet, device: torch.device) -> Examples:
    """Examples of a data set, on the device where they fit the memory that the data may take."""
    rule = _Rule.of(data, device)
    if data.streams:
        return _Streamed(split, rule, device)
    inputs = {name: torch.from_numpy(_copied(rows)).to(device) for name, rows in split.inputs.items()}
    return _OnDevice(inputs, _targets(split, np.arange(len(split)), device), rule)


def example_inputs(data: DataSet) -> Inputs:
    """Two examples, as a call of the network."""
    split = data.train if len(data.train) else data.test
    few = split.take(np.arange(2) % len(split))
    inputs, _ = next(placed(few, data, torch.device("cpu")).batches([np.arange(2)]))
    return inputs


@dataclass(frozen=True)
class _Rule:
    """What turns the first input into numbers of the network; None: it is taken as it is."""

    scale: Tensor | None
    shift: Tensor | None

    @classmethod
    def of(cls, data: DataSet, device: torch.device) -> "_Rule":
        if not data.mean:
            return cls(None, None)
        rows = data.test.first
        factors = normalisation_factors(data.mean, data.std, unit=unit_of(rows.dtype))
        along = (-1, *(1,) * (len(rows.shape) - 2))
        scale, shift = (torch.from_numpy(values).view(along).to(device) for values in factors)
        return cls(scale, shift)

    def applied(self, inputs: Mapping[str, Tensor]) -> Inputs:
        """A call: by position where there is one input, else by name."""
        first, *others = inputs.items()
        value = first[1]
        if self.scale is not None and self.shift is not None:
            value = value.float() * self.scale + self.shift
        return Inputs((value,)) if not others else Inputs((), {first[0]: value, **dict(others)})


@dataclass(frozen=True)
class _OnDevice:
    """Everything in the memory of the device; a batch is a gather."""

    inputs: dict[str, Tensor]
    targets: Any
    rule: _Rule

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def batches(self, order: Iterable[Index]) -> Iterator[Batch]:
        """See `Examples`."""
        device = next(iter(self.inputs.values())).device
        for numbers in order:
            index = torch.from_numpy(numbers).to(device)
            rows = {name: values[index] for name, values in self.inputs.items()}
            yield self.rule.applied(rows), _chosen(self.targets, index)


@dataclass(frozen=True)
class _Streamed:
    """Rows on the disk, read some batches ahead; targets are in memory."""

    split: Split
    rule: _Rule
    device: torch.device

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, order: Iterable[Index]) -> Iterator[Batch]:
        """See `Examples`."""
        waiting: list[Future[tuple[dict[str, Tensor], Index]]] = []
        with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as pool:
            try:
                for numbers in order:
                    waiting.append(pool.submit(self._read, numbers))
                    if len(waiting) > _AHEAD:
                        yield self._ready(waiting.pop(0))
                while waiting:
                    yield self._ready(waiting.pop(0))
            finally:  # the training may stop in the middle of an epoch
                for future in waiting:
                    future.cancel()

    def _read(self, numbers: Index) -> tuple[dict[str, Tensor], Index]:
        """In ascending order of the rows, as disks like it, and then as asked for."""
        ascending = np.argsort(numbers, kind="stable")
        back = np.argsort(ascending, kind="stable")
        found = {}
        for name, rows in self.split.inputs.items():
            tensor = torch.from_numpy(_copied(rows, numbers[ascending]))[torch.from_numpy(back)]
            found[name] = tensor.pin_memory() if self.device.type == "cuda" else tensor
        return found, numbers

    def _ready(self, future: "Future[tuple[dict[str, Tensor], Index]]") -> Batch:
        rows, numbers = future.result()
        on_device = {name: tensor.to(self.device, non_blocking=True) for name, tensor in rows.items()}
        return self.rule.applied(on_device), _targets(self.split, numbers, self.device)


def _copied(rows: Rows, index: Index | None = None) -> np.ndarray[Any, Any]:
    """Rows as an array that torch may write to."""
    return np.array(rows[:] if index is None else rows[index])


def _targets(split: Split, numbers: Index, device: torch.device) -> Any:
    found = {
        name: torch.from_numpy(np.array(values[numbers])).to(device) for name, values in split.targets.items()
    }
    return next(iter(found.values())) if len(found) == 1 else found


def _chosen(targets: Any, index: Tensor) -> Any:
    return (
        {name: values[index] for name, values in targets.items()}
        if isinstance(targets, dict)
        else targets[index]
    )
