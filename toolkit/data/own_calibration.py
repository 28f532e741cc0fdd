"""Training examples of the user's own that the ranges of activations are measured on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from modelpress.export.errors import InputError
from modelpress.export.handoff.bundle_files.image_data import SUFFIXES
from modelpress.export.post_training.calibration import Feed
from modelpress.toolkit.data.calibration_data import Inputs, choice
from modelpress.toolkit.data.data_set import DataSet
from modelpress.toolkit.data.measured_set import Sections, own_set
from modelpress.toolkit.data.network_input import network_inputs
from modelpress.toolkit.data.sources.array_files import is_target
from modelpress.toolkit.data.sources.torch_datasets import is_function

_BATCH = 32


def is_own(path: str) -> bool:
    """Whether a path names examples with targets, as training takes them, and no bare inputs."""
    lower = path.lower()
    if lower.endswith((".csv", ".yaml", ".yml")):
        return True
    if lower.endswith(".npz"):
        try:
            with ZipFile(path) as archive:
                return any(is_target(name.removesuffix(".npy")) for name in archive.namelist())
        except (OSError, BadZipFile):
            return False  # told by whoever reads it
    folder = Path(path)
    try:
        if folder.is_dir():
            below = (entry for inner in folder.iterdir() if inner.is_dir() for entry in inner.rglob("*"))
            return any(entry.suffix.lower() in SUFFIXES for entry in below)
    except OSError:
        return False
    return is_function(path) and not folder.exists()


def own_calibration(
    sections: Sections, metadata: Mapping[str, str], *, n_examples: int
) -> Inputs | list[Feed]:
    """Training examples as a model takes them, chosen at random (seeded) where there are more than asked for.

    Of data that the model does not name, all examples may be used.

    Args:
        sections: ``data`` and ``task`` of a recipe, as far as they were given.
        metadata: The model's ``metadata_props``.
        n_examples: How many at most.

    Returns:
        One array, or calls of a model that takes several inputs.

    Raises:
        InputError: The data cannot be read, or hold no training examples.
    """
    data = own_set(sections, metadata)
    return calibration_of(data, metadata, n_examples=n_examples)


def calibration_of(data: DataSet, metadata: Mapping[str, str], *, n_examples: int) -> Inputs | list[Feed]:
    """Training examples of a data set, else (where all are test examples) those; see `own_calibration`.

    Raises:
        InputError: There are none.
    """
    split = data.train if len(data.train) else data.test
    if not len(split):
        raise InputError(f"{data.name} has no training {data.noun}")
    few = split.take(choice(len(split), n_examples))
    arrays: dict[str, Any] = {
        name: np.asarray(rows[:]) for name, rows in network_inputs(few, data, metadata).items()
    }
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    return [
        {name: array[start : start + _BATCH] for name, array in arrays.items()}
        for start in range(0, len(few), _BATCH)
    ]
