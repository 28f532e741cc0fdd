"""A classified image set, split for honest use."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import InputError

_SPLIT_SEED = 0  # not the recipe's seed: one stage's training images never are another's validation images


@dataclass(frozen=True)
class Split:
    """Images with labels.

    Attributes:
        images: Shape ``(n, 3, 32, 32)``, uint8, channels R, G, B.
        labels: Shape ``(n,)``, int64.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: npt.NDArray[np.int64]) -> "Split":
        """The chosen images, in the order of `index`."""
        return Split(self.images[index], self.labels[index])


@dataclass(frozen=True)
class ImageSet:
    """Training, validation and test images of one data set.

    Attributes:
        validation: Held out of the training set; for watching and choosing.
        test: For the final figure only.
        mean: Per channel, in units of pixel / 255.
        std: Per channel, in units of pixel / 255.
        mirrored: Whether a mirrored image is still a valid one.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    mirrored: bool

    def hold_out(self, fraction: float) -> "ImageSet":
        """Move a fraction of the training images, always the same ones, into the validation split."""
        order = np.random.default_rng(_SPLIT_SEED).permutation(len(self.train))
        n_held = round(fraction * len(self.train))
        return replace(
            self,
            validation=self.train.take(np.sort(order[:n_held])),
            train=self.train.take(np.sort(order[n_held:])),
        )

    def test_facts(self) -> dict[str, str | int]:
        """What a record of an accuracy says of its data."""
        return {"name": self.name, "test_images": len(self.test), "fingerprint": self.fingerprint()}

    def fingerprint(self) -> str:
        """SHA-256 over the test images and labels: names the data that an accuracy belongs to."""
        digest = hashlib.sha256(self.test.images.tobytes())
        digest.update(self.test.labels.tobytes())
        return digest.hexdigest()


def normalised(
    images: npt.NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]
) -> npt.NDArray[np.float32]:
    """Network input: ``(pixel / 255 - mean) / std`` per channel, float32.

    Example:
        >>> normalised(np.full((1, 3, 1, 1), 255, np.uint8), (0.5,) * 3, (0.25,) * 3).ravel()
        array([2., 2., 2.], dtype=float32)
    """
    scale, shift = normalisation_factors(mean, std)
    return images.astype(np.float32) * scale[:, None, None] + shift[:, None, None]


def normalisation_factors(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Factor and summand per channel that turn pixels into network input, so that every consumer agrees."""
    scale = 1.0 / (255.0 * np.asarray(std))
    shift = -np.asarray(mean) / np.asarray(std)
    return scale.astype(np.float32), shift.astype(np.float32)


def load_image_set(
    name: str, *, folder: str | None = None, download: bool = False, test_only: bool = False
) -> ImageSet:
    """Load a data set by name, everything but the test images in the training split.

    Args:
        name: ``cifar10`` or ``digits``.
        folder: Where the files are (``cifar10``).
        download: Whether missing files may be fetched (``cifar10``, needs torchvision).
        test_only: Leave the training split empty where that saves reading it.

    Raises:
        InputError: The data are missing or damaged, or a folder is given for a set that needs none.
    """
    if name == "digits":
        if folder is not None or download:
            raise InputError(
                "the digits need no folder and no download: leave them out, or choose the data set cifar10"
            )
        from modelpress.toolkit.data.digits import load_digits

        return load_digits()
    if name == "cifar10":
        from modelpress.toolkit.data.cifar10 import load_cifar10

        return load_cifar10(folder, download=download, test_only=test_only)
    raise InputError(f"data set {name!r} is unknown; choose cifar10 or digits")
