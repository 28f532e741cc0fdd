"""The data sets that have a name; imports nothing, so that help texts stay fast."""

from typing import Literal, get_args

DataSetName = Literal["digits", "cifar10"]
DATA_SETS: tuple[DataSetName, ...] = get_args(DataSetName)
