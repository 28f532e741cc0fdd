"""Images as a model takes them: normalised as its file says, else as its data set is."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import InputError
from modelpress.export.post_training.calibration import pixel_normalisation
from modelpress.toolkit.data.image_set import ImageSet, normalised

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation, per channel


def network_input(
    pixels: npt.NDArray[np.uint8], images: ImageSet, metadata: Mapping[str, str]
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


def normalisation_for(images: ImageSet, metadata: Mapping[str, str]) -> Normalisation:
    """Mean and standard deviation per channel that a model expects.

    Raises:
        InputError: As in `network_input`.
    """
    mean, std = pixel_normalisation(metadata) or (images.mean, images.std)
    if len(mean) != len(images.mean):
        raise InputError(
            f"the model is made for images of {len(mean)} channels, those of {images.name} have {len(images.mean)}"
        )
    return tuple(mean), tuple(std)
