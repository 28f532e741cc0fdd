"""Examples with what is to be learnt from them, split for honest use."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from modelpress.benchmarks.measures.metrics import Metric
from modelpress.export.post_training.pixels import normalisation_factors
from modelpress.toolkit.data.names import AugmentationName
from modelpress.toolkit.data.options import TaskOptions
from modelpress.toolkit.data.rows import Array, Rows, blocks_of, chosen
from modelpress.toolkit.data.tasks import metric_of, n_outputs

_SPLIT_SEED = 0  # not the recipe's seed: one stage's training images never are another's validation images
IMAGES, LABELS = "images", "labels"


@dataclass(frozen=True)
class Split:
    """Examples with their targets.

    Attributes:
        inputs: By name, one example a row. Images are uint8, ``(n, channels, height, width)``.
        targets: By name; classes are int64, ``(n,)``.
    """

    inputs: Mapping[str, Rows]
    targets: Mapping[str, Array]

    @classmethod
    def of(cls, images: Rows, labels: Array) -> "Split":
        """Examples of one input with one target."""
        return cls({IMAGES: images}, {LABELS: labels})

    def __len__(self) -> int:
        return len(next(iter(self.targets.values())))

    @property
    def first(self) -> Rows:
        """The first input, which is the only one of images."""
        return next(iter(self.inputs.values()))

    @property
    def images(self) -> npt.NDArray[np.uint8]:
        """The first input as one array in memory."""
        return np.asarray(self.first[:])

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The first target."""
        return next(iter(self.targets.values()))

    @property
    def all_targets(self) -> Array | Mapping[str, Array]:
        """The only target, or all of them by name."""
        return self.labels if len(self.targets) == 1 else self.targets

    def take(self, index: npt.NDArray[np.int64]) -> "Split":
        """The chosen examples, in the order of `index`; what lies on a disk stays there."""
        return Split(
            {name: chosen(rows, index) for name, rows in self.inputs.items()},
            {name: target[index] for name, target in self.targets.items()},
        )

    @property
    def n_bytes(self) -> int:
        """Of all inputs, as they would be in memory."""
        return sum(int(np.prod(rows.shape)) * rows.dtype.itemsize for rows in self.inputs.values())

    def chunks(self) -> Iterator[Array]:
        """All inputs and then all targets, as contiguous arrays in a fixed order."""
        for rows in self.inputs.values():
            yield from blocks_of(rows)
        for target in self.targets.values():
            yield np.ascontiguousarray(target)


@dataclass(frozen=True)
class DataSet:
    """Training, validation and test examples.

    Attributes:
        class_names: Empty where there are no classes.
        validation: Held out of the training set; for watching and choosing.
        test: For the final figure only.
        mean: Of the first input along its second axis, pixels in units of pixel / 255; empty: taken as it is.
        std: Likewise.
        mirrored: Whether a mirrored image is still a valid one.
        augment: Of training batches; None: as the named sets have always been, by crops and mirrors in one gather.
        memory: Bytes that it may take in memory; None: as many as there are.
        task: What is learnt.
        description: Of data of the user's own, what gives the same splits from the same source again.
        notes: What there is to say of them, a sentence each.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirrored: bool
    augment: tuple[AugmentationName, ...] | None = None
    memory: int | None = None
    task: TaskOptions = field(default=TaskOptions())
    description: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def hold_out(self, fraction: float) -> "DataSet":
        """Move a fraction of the training images, always the same ones, into the validation split."""
        order = np.random.default_rng(_SPLIT_SEED).permutation(len(self.train))
        n_held = round(fraction * len(self.train))
        return replace(
            self,
            validation=self.train.take(np.sort(order[:n_held])),
            train=self.train.take(np.sort(order[n_held:])),
        )

    @property
    def is_own(self) -> bool:
        """Whether it is the user's own, and no named set."""
        return bool(self.description)

    @property
    def n_outputs(self) -> int:
        """Numbers that a network must give for each example, or for each place of a sequence."""
        if self.class_names:
            return len(self.class_names)
        return max(n_outputs(split.labels, self.task) for split in (self.train, self.validation, self.test))

    @property
    def metric(self) -> Metric:
        """What it is judged by."""
        return metric_of(self.task)

    @property
    def classifies(self) -> bool:
        """Whether one class is right, and top-1 the metric."""
        return self.task.kind == "classification" and self.task.metric is None

    @property
    def of_images(self) -> bool:
        """Whether the first input is pixels."""
        return self.test.first.dtype == np.uint8

    @property
    def noun(self) -> str:
        """What an example is called."""
        return "images" if self.of_images else "examples"

    @property
    def streams(self) -> bool:
        """Whether the examples are too large for the memory that they may take."""
        total = sum(split.n_bytes for split in (self.train, self.validation, self.test))
        return self.memory is not None and total > self.memory

    def test_facts(self) -> dict[str, str | int]:
        """What a record of an accuracy says of its data."""
        facts: dict[str, str | int] = {
            "name": self.name,
            "test_images": len(self.test),
            "fingerprint": self.fingerprint(),
        }
        return {**facts, "training_examples": len(self.train)} if self.is_own and len(self.train) else facts

    def fingerprint(self) -> str:
        """SHA-256 over the test examples and their targets: names the data that an accuracy belongs to."""
        digest = hashlib.sha256()
        for block in self.test.chunks():
            digest.update(block.tobytes())
        return digest.hexdigest()


def normalised(images: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> npt.NDArray[np.float32]:
    """Network input: ``(pixel / 255 - mean) / std`` per channel, float32; ``(value - mean) / std`` of what is no pixel.

    Example:
        >>> normalised(np.full((1, 3, 1, 1), 255, np.uint8), (0.5,) * 3, (0.25,) * 3).ravel()
        array([2., 2., 2.], dtype=float32)
    """
    scale, shift = normalisation_factors(mean, std, unit=unit_of(images.dtype))
    along = (slice(None), *(None,) * (images.ndim - 2))  # of the second axis
    return images.astype(np.float32) * scale[along] + shift[along]


def unit_of(dtype: np.dtype[np.generic]) -> float:
    """What mean and standard deviation are measured in."""
    return 255.0 if dtype == np.uint8 else 1.0
