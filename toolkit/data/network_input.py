"""Examples as a model takes them: normalised as its file says, else as its data set is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import InputError
from modelpress.export.post_training.calibration import pixel_normalisation
from modelpress.toolkit.data.data_set import DataSet, Split, normalised
from modelpress.toolkit.data.rows import Array, Index, Rows

Normalisation = tuple[
    tuple[float, ...], tuple[float, ...]
]  # mean and standard deviation, per channel; empty: as it is
VALUES_METADATA = "modelpress.values"  # as `modelpress.input` of pixels


@dataclass(frozen=True)
class NormalisedRows:
    """Rows that are normalised when they are asked for."""

    rows: Rows
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`."""
        return self.rows.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `Rows`."""
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | Index) -> npt.NDArray[np.float32]:
        return normalised(self.rows[index], self.mean, self.std)


def network_input(
    pixels: npt.NDArray[np.uint8], images: DataSet, metadata: Mapping[str, str]
) -> npt.NDArray[np.float32]:
    """Pixels of a data set, normalised for a model.

    Args:
        pixels: Shape ``(n, channels, height, width)``.
        images: The data set; it decides where the model does not say.
        metadata: The model's ``metadata_props``.

    Raises:
        InputError: The model's metadata are damaged, or are for images of other channels.
    """
    mean, std = normalisation_for(images, metadata)
    return normalised(pixels, mean, std)


def network_inputs(split: Split, data: DataSet, metadata: Mapping[str, str]) -> dict[str, Rows]:
    """The inputs of some examples for a model, by their names in the data.

    Those of named sets are arrays, normalised at once; those of the user's own are normalised when they are asked for.

    Raises:
        InputError: As `normalisation_for`.
    """
    mean, std = normalisation_for(data, metadata)
    first, *others = split.inputs.items()
    if not mean:
        return dict(split.inputs)
    made: Rows = NormalisedRows(first[1], mean, std)
    return {first[0]: made if data.is_own else made[:], **dict(others)}


def normalisation_for(data: DataSet, metadata: Mapping[str, str]) -> Normalisation:
    """Mean and standard deviation per channel that a model expects; empty where values are taken as they are.

    Raises:
        InputError: The model's metadata are damaged, are for data of other channels, or nobody says how pixels become
            input.
    """
    stated = pixel_normalisation(metadata) if data.of_images else _value_normalisation(metadata)
    mean, std = stated or (data.mean, data.std)
    if not mean and data.of_images:
        raise InputError(
            "the model does not say how pixels become its input; give mean and std of pixel / 255, as in "
            "--set data.normalise=imagenet, or --set 'data.normalise={mean: [0.5], std: [0.25]}'"
        )
    channels = data.test.first.shape[1]
    if mean and len(mean) != channels:
        kind = "images" if data.of_images else "values"
        raise InputError(
            f"the model is made for {kind} of {len(mean)} channels, those of {data.name} have {channels}"
        )
    return tuple(mean), tuple(std)


def _value_normalisation(metadata: Mapping[str, str]) -> Normalisation | None:
    text = metadata.get(VALUES_METADATA)
    if text is None:
        return None
    try:
        stated = json.loads(text)
        mean, std = (tuple(float(v) for v in stated[key]) for key in ("mean", "std"))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise InputError(f"the model's metadata {VALUES_METADATA} are damaged: {text[:100]!r}") from error
    if not mean or len(mean) != len(std) or not np.isfinite(mean + std).all() or min(std) <= 0:
        raise InputError(f"the model's metadata {VALUES_METADATA} are damaged: mean {mean}, std {std}")
    return mean, std


def values_of(rows: Rows) -> Array:
    """All rows as one array."""
    return np.asarray(rows[:])
