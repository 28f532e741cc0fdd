"""Images that the ranges of activations are measured on: from a file, or the training images of a data set."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from modelpress.export.choices import CALIBRATION_INPUTS
from modelpress.export.errors import InputError
from modelpress.export.post_training.calibration import pixel_normalisation
from modelpress.toolkit.data.array_rows import read_rows
from modelpress.toolkit.data.data_set import DataSet, normalised
from modelpress.toolkit.data.measured_set import DATASET_METADATA
from modelpress.toolkit.data.network_input import network_input
from modelpress.toolkit.data.registry import load_data_set

Inputs = npt.NDArray[np.generic]
_Number = TypeVar("_Number", bound=np.generic)
_SEED = 0  # of the choice, so that equal commands give equal files


def load_calibration(
    path: Path | None,
    *,
    data_dir: str | None = None,
    dataset: str | None = None,
    n_images: int = CALIBRATION_INPUTS,
    metadata: Mapping[str, str],
) -> Inputs:
    """Calibration inputs, chosen at random (seeded) where there are more than asked for.

    Args:
        path: An ``.npy`` or ``.npz`` file: float32, or integers such as the numbers of words, as the network takes
            them, or uint8 images, ``(n, C, H, W)`` or ``(n, H, W, C)``, normalised here by the model's metadata. Or a
            folder that holds a data set.
        data_dir: The folder of the data set, if `path` is None.
        dataset: Its name; None: the one in the model's metadata. Training images only are taken.
        n_images: How many inputs at most.
        metadata: The model's ``metadata_props``.

    Returns:
        Shape ``(n, C, H, W)`` for images; else that of the file.

    Raises:
        InputError: There is nothing to load, or it is not as described.
    """
    if n_images < 1:
        raise InputError(
            f"{n_images} calibration images are too few; expected 1 or more, e.g. {CALIBRATION_INPUTS}"
        )
    if path is not None and not _is_folder(path):
        return _prepared(path, read_rows(path, lambda n: choice(n, n_images)), metadata)

    folder = data_dir if path is None else str(path)
    name = dataset or metadata.get(DATASET_METADATA)
    if folder is None and (path is not None or name != "digits"):
        raise InputError(
            "integer arithmetic needs calibration data: pass --calibration-data FILE.npy (float32 inputs, or uint8 "
            "images) or a folder that holds CIFAR-10; 100 to 1,000 training images do; flavours float, weight-only "
            "and sparse need none"
        )

    return _training_images(name or "cifar10", folder, n_images, metadata)


def training_inputs(images: DataSet, n_images: int, metadata: Mapping[str, str]) -> Inputs:
    """Training images as the network takes them, chosen at random (seeded) where there are more than asked for.

    Args:
        images: The data set.
        n_images: How many at most.
        metadata: The model's ``metadata_props``; what they say of mean and standard deviation counts.
    """
    return network_input(_chosen(images.train.images, n_images), images, metadata)


def _training_images(name: str, folder: str | None, n_images: int, metadata: Mapping[str, str]) -> Inputs:
    images = load_data_set(name, folder=folder)
    if not len(images.train):
        raise InputError(f"{name} has no training images in {folder}")
    return training_inputs(images, n_images, metadata)


def _chosen(arrays: npt.NDArray[_Number], n_images: int) -> npt.NDArray[_Number]:
    return arrays if len(arrays) <= n_images else arrays[choice(len(arrays), n_images)]


def choice(n: int, n_images: int) -> npt.NDArray[np.int64]:
    """Ascending indices of at most `n_images` of `n`."""
    if n <= n_images:
        return np.arange(n)
    return np.sort(np.random.default_rng(_SEED).choice(n, n_images, replace=False))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:  # too long a name, for one
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _prepared(path: Path, array: npt.NDArray[np.generic], metadata: Mapping[str, str]) -> Inputs:
    """What the network takes.

    Raises:
        InputError: The array is of another type, or how to normalise it is not known.
    """
    if array.dtype == np.float32:
        return np.asarray(array, np.float32)

    stated = pixel_normalisation(metadata)
    if stated is None and array.dtype in (np.int32, np.int64):
        return array
    if array.dtype != np.uint8:
        raise InputError(
            f"{path}: type {array.dtype}; expected float32, normalised as the network takes it, or uint8 images; "
            "convert it with array.astype(numpy.float32)"
        )

    if stated is None:
        raise InputError(
            f"{path}: holds uint8 images, but the model's metadata do not say how to normalise them; "
            "normalise them yourself and pass float32"
        )

    images = _channels_first(path, np.asarray(array, np.uint8), len(stated[0]))
    return normalised(images, tuple(stated[0]), tuple(stated[1]))


def _channels_first(path: Path, images: npt.NDArray[np.uint8], channels: int) -> npt.NDArray[np.uint8]:
    """Shape ``(n, C, H, W)``, which is taken for granted where the second axis has as many entries as channels.

    Raises:
        InputError: No axis has.
    """
    if images.ndim == 3 and channels == 1:
        return images[:, None]
    if images.ndim == 4 and images.shape[1] == channels:
        return images
    if images.ndim == 4 and images.shape[3] == channels:
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))

    raise InputError(
        f"{path}: uint8 images of shape {images.shape}; expected (n, {channels}, H, W) or (n, H, W, {channels})"
    )
