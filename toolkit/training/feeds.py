"""Where the batches of a training come from: images in device memory, examples of any kind, or a user's own loader."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from modelpress.export.errors import InputError
from modelpress.toolkit.data.batches import DeviceSplit, EpochPlan, n_batches
from modelpress.toolkit.data.names import AugmentationName
from modelpress.toolkit.networks.inputs import Inputs
from modelpress.toolkit.training.augmentation import augmented
from modelpress.toolkit.training.device import Device
from modelpress.toolkit.training.examples import Batch, Examples


class Feed(Protocol):
    """Batches of inputs and targets, epoch after epoch."""

    def __len__(self) -> int:
        """Steps per epoch."""

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """Those of an epoch from its step `first` on, on the device; the same ones whenever they are asked for."""

    def identity(self) -> dict[str, Any]:
        """What distinguishes it, for files that a training is resumed from."""


@dataclass(frozen=True)
class ImageFeed:
    """Images in device memory: shuffled, cropped and mirrored by seed and epoch.

    Attributes:
        size: Images per step, of all processes that train together.
        mirror: Every second image is mirrored.

    Raises:
        InputError: The processes cannot share a step evenly.
    """

    split: DeviceSplit
    size: int
    device: Device
    seed: int
    mirror: bool

    def __post_init__(self) -> None:
        self._part()  # refuses an uneven share before any work

    def __len__(self) -> int:
        return n_batches(self.split, self.size)

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """See `Feed`."""
        plan = EpochPlan.draw(self.split, seed=self.seed, epoch=epoch, mirror=self.mirror)
        for step in range(first, len(self)):
            images, labels = plan.batch(self.split, step, size=self.size, part=self._part())
            if self.device.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            yield Inputs((images,)), labels

    def identity(self) -> dict[str, Any]:
        """See `Feed`."""
        return {"seed": self.seed, "images": len(self.split), "mirror": self.mirror}

    def _part(self) -> slice:
        return self.device.team.part(min(self.size, len(self.split)))


@dataclass(frozen=True)
class ExampleFeed:
    """Examples of any kind, on the device or streamed: shuffled and augmented by seed and epoch.

    Attributes:
        size: Examples per step, of all processes that train together.
        augment: What is done to the first input.
        padding: Of crops, in pixels.

    Raises:
        InputError: The processes cannot share a step evenly.
    """

    examples: Examples
    size: int
    device: Device
    seed: int
    augment: tuple[AugmentationName, ...] = ()
    padding: int = 0

    def __post_init__(self) -> None:
        self._part()  # refuses an uneven share before any work

    def __len__(self) -> int:
        return max(1, len(self.examples) // self.size)

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """See `Feed`."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.examples), generator=generator).numpy()
        part = self._part()
        chosen = (order[s * self.size : (s + 1) * self.size][part] for s in range(first, len(self)))
        for step, (inputs, targets) in enumerate(self.examples.batches(chosen), first):
            seed = (self.seed, epoch, step, self.device.team.rank)
            yield self._laid_out(inputs.with_first(partial(self._augmented, seed=seed))), targets

    def identity(self) -> dict[str, Any]:
        """See `Feed`."""
        return {
            "seed": self.seed,
            "images": len(self.examples),
            "augment": list(self.augment),
            "padding": self.padding,
        }

    def _augmented(self, inputs: Tensor, *, seed: Sequence[int]) -> Tensor:
        return augmented(inputs, self.augment, seed=seed, padding=self.padding) if self.augment else inputs

    def _laid_out(self, inputs: Inputs) -> Inputs:
        if not self.device.channels_last:
            return inputs
        return inputs.with_first(
            lambda x: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        )

    def _part(self) -> slice:
        return self.device.team.part(min(self.size, len(self.examples)))


@dataclass(frozen=True)
class LoaderFeed:
    """A loader of the user's own, such as a `torch.utils.data.DataLoader`: pairs of inputs and targets.

    Its order in an epoch is drawn from seed and epoch number, unless it has a generator of its own.

    Attributes:
        loader: Can be gone through once per epoch, and has a length. Inputs are a tensor, or a tuple or dict of
            tensors.

    Raises:
        InputError: It has no length, or is empty.
    """

    loader: Iterable[Any]
    device: torch.device
    seed: int

    def __post_init__(self) -> None:
        if not isinstance(self.loader, Sized) or isinstance(self.loader, Iterator):
            raise InputError(
                f"data is a {type(self.loader).__name__}; expected a DataLoader, or a list of (inputs, targets), that "
                "has a length and starts anew in every epoch"
            )
        if not len(self.loader):
            raise InputError("data has no batches: is the batch larger than the data set, with drop_last?")

    def __len__(self) -> int:
        assert isinstance(self.loader, Sized)
        return len(self.loader)

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """See `Feed`."""
        new_order = getattr(getattr(self.loader, "sampler", None), "set_epoch", None)
        if new_order is not None:  # of processes that train together
            new_order(epoch)

        # samplers draw their order when the first batch is asked for; the network's own numbers are left alone
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed * 1_000_003 + epoch)
            found = iter(self.loader)
            opening = list(islice(found, 1))
        for number, batch in enumerate(_chained(opening, found)):
            if number >= first:
                yield self._placed(batch)

    def in_order(self, batch: int) -> Iterator[Batch]:
        """All of them, in the loader's own batches: for validation, whose loader does not shuffle."""
        return self.batches(0, 0)

    def identity(self) -> dict[str, Any]:
        """See `Feed`."""
        return {"seed": self.seed, "steps_per_epoch": len(self)}

    def _placed(self, batch: Any) -> Batch:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise InputError(
                f"a batch of data is {_described(batch)}; expected a pair: inputs (a tensor, a tuple or "
                "a dict) and targets"
            )
        return Inputs.of(batch[0]).on(self.device), _moved(batch[1], self.device)


def _chained(opening: list[Any], rest: Iterator[Any]) -> Iterator[Any]:
    yield from opening
    yield from rest


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(part, device) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_moved(part, device) for part in value)
    return value


def _described(batch: Any) -> str:
    length = f" of {len(batch)}" if isinstance(batch, tuple | list | dict) else ""
    return f"a {type(batch).__name__}{length}"
