"""The sections of a recipe that describe data and what is to be learnt from them: the same words for every command."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from modelpress.toolkit.data.names import AugmentationName, DataSetName, TaskKind
from modelpress.toolkit.section import FiniteFloat, Fraction, Options, PositiveFloat, PositiveInt

Size = Annotated[int, Field(ge=1, le=4096)]


def _as_pair(value: object) -> object:
    """One side stands for a square."""
    return (value, value) if type(value) is int else value


class NormalisationOptions(Options):
    """How values become network input: ``(value - mean) / std``, pixels first divided by 255."""

    mean: Annotated[tuple[FiniteFloat, ...], Field(min_length=1)]
    """Per channel, as in R, G, B; in units of pixel / 255."""
    std: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
    """Per channel; in units of pixel / 255."""

    @model_validator(mode="after")
    def _as_many_means_as_deviations(self) -> "NormalisationOptions":
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean has {len(self.mean)} values, std {len(self.std)}: give one of each per channel"
            )
        return self


class DataOptions(Options):
    """Which data: a named set, or your own."""

    dataset: DataSetName = "digits"
    """`digits` ships inside scikit-learn; `cifar10` needs a folder."""
    dir: str | None = None
    """Folder of the data set."""
    download: bool = False
    """Fetch missing data."""
    source: str | None = None
    """Your own data: a folder of images, a .csv of paths and labels, an .npz or .npy, or file.py:function."""
    labels: str | None = None
    """Targets of an .npy source: another .npy file."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of a source that is a function."""
    validation: Annotated[float, Field(ge=0, le=0.5)] | str = 0.1
    """Fraction of the training examples held out for watching the training; or a source of their own."""
    test: Annotated[float, Field(ge=0, le=1)] | str = 0.2
    """Fraction of your own data kept for the final figure; or a source of their own. Parts named by the source win."""
    stratified: bool = True
    """Fractions of your own data are taken from every class alike."""
    split_seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of those fractions; not the recipe's seed, so that test examples are the same in every run."""
    resize: Annotated[tuple[Size, Size] | None, BeforeValidator(_as_pair)] = None
    """Images are scaled to cover (height, width) and cropped to their centre; without it all must have one size."""
    colour: Literal["rgb", "grey"] = "rgb"
    """Channels that image files are read in."""
    normalise: Literal["auto", "none", "standard", "imagenet"] | NormalisationOptions = "auto"
    """none, standard (mean and deviation of training examples), imagenet, {mean, std}; auto: standard for images."""
    augment: tuple[AugmentationName, ...] | None = None
    """Of training batches, in this order: crop, flip, cutout, colour, time-shift, noise; else crop for own images."""
    unreadable: Fraction = 0.01
    """Share of image files that may be unreadable: they are named and left out."""
    memory: PositiveInt = 2048
    """MiB that your own data may take in memory; more is streamed from the disk in every epoch."""


def _as_kind(value: object) -> object:
    """A word stands for the section."""
    return {"kind": value} if isinstance(value, str) else value


class TaskOptions(Options):
    """What is learnt, and how it is judged."""

    kind: TaskKind = "classification"
    """classification, multi-label, regression, or sequence (a class at every place)."""
    loss: str | None = None
    """Your own loss, file.py:function, of outputs and targets as torch tensors; a scalar."""
    metric: str | None = None
    """Your own metric, file.py:function, of outputs and targets as NumPy arrays: a number, or one for each example."""
    lower_is_better: bool = False
    """Of your own metric."""
    class_weights: Literal["none", "balanced"] | tuple[PositiveFloat, ...] = "none"
    """Weight of each class in the loss; balanced: inversely to how often it occurs."""


Task = Annotated[TaskOptions, BeforeValidator(_as_kind)]
