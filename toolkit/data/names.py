"""What has a name in recipes: data sets, tasks, augmentations; imports nothing, so that help texts stay fast."""

from typing import Literal, get_args

DataSetName = Literal["digits", "cifar10"]
DATA_SETS: tuple[DataSetName, ...] = get_args(DataSetName)
TaskKind = Literal["classification", "multi-label", "regression", "sequence"]
AugmentationName = Literal["crop", "flip", "cutout", "colour", "time-shift", "noise"]
