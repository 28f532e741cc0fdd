"""Image files as rows that are decoded when they are asked for, by several threads: decoding leaves Python alone."""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import InputError
from modelpress.export.extras import how_to_install
from modelpress.export.handoff.bundle_files.run import FORMATS, centre_of_resized
from modelpress.toolkit.data.rows import Index

if TYPE_CHECKING:
    from PIL import Image

_CHANNELS = {"rgb": 3, "grey": 1}
Pixels = npt.NDArray[np.uint8]


class Unreadable(Exception):  # noqa: N818 - reads as the fact it states
    """An image file cannot be decoded."""


@dataclass(frozen=True)
class DecodedImages:
    """Images of one size.

    Attributes:
        paths: Of the files.
        size: Height and width; files of another size are scaled to cover it and cropped to their centre.
        colour: ``rgb`` or ``grey``.
    """

    paths: Sequence[Path]
    size: tuple[int, int]
    colour: str

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`."""
        return (len(self.paths), _CHANNELS[self.colour], *self.size)

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """See `Rows`."""
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: slice | Index) -> Pixels:
        """Decode these files.

        Raises:
            InputError: One cannot be decoded any more.
        """
        numbers = np.arange(len(self.paths))[index]
        images = np.empty((len(numbers), *self.shape[1:]), np.uint8)

        def fill(place: int) -> None:
            images[place] = decode(self.paths[int(numbers[place])], self.size, self.colour)

        try:
            list(self._pool.map(fill, range(len(numbers))))
        except Unreadable as error:
            raise InputError(f"{error}; it could be read before: was it changed meanwhile?") from error
        return images

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(n_workers(), thread_name_prefix="decode")


def n_workers() -> int:
    """Threads that read: as many as there are cores for this process."""
    return max(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 1)


def decode(path: Path, size: tuple[int, int] | None, colour: str) -> Pixels:
    """An image file as uint8, ``(channels, height, width)``: upright, transparency on white.

    Args:
        path: The file.
        size: Height and width; None: as it is.
        colour: ``rgb`` or ``grey``.

    Raises:
        Unreadable: It is no image, or a damaged one.
        InputError: pillow is not installed.
    """
    image = opened(path)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = _on_white(image)
    image = image.convert("L" if colour == "grey" else "RGB")
    if size is not None and image.size != size[::-1]:
        image = _covering(image, size)
    pixels = np.asarray(image, np.uint8)
    return pixels[None] if colour == "grey" else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def opened(path: Path) -> "Image.Image":
    """A decoded image, upright.

    Raises:
        Unreadable: It is no image, or a damaged one.
        InputError: pillow is not installed.
    """
    pillow, orient = _pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata of files that decode all the same
            with pillow.open(path, formats=FORMATS) as file:
                image = orient.exif_transpose(file)
                image.load()
    except Exception as error:  # every format raises its own kinds
        raise Unreadable(f"{path}: cannot be read as an image: {error}") from error
    if image.mode[0] in "IF":
        raise Unreadable(f"{path}: has pixels of mode {image.mode}; expected 8 bits per colour")
    return image


def _pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise InputError(
            f"image files are read by pillow, which is not installed: {how_to_install('images')}"
        ) from error
    return Image, ImageOps


def _on_white(image: "Image.Image") -> "Image.Image":
    pillow, _ = _pillow()
    image = image.convert("RGBA")
    return pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)


def _covering(image: "Image.Image", size: tuple[int, int]) -> "Image.Image":
    """As a bundle's `run.py` does it, so that a model sees there what it was trained on."""
    height, width = size
    ratio = max(width / image.width, height / image.height)
    whole = (max(width, round(image.width * ratio)), max(height, round(image.height * ratio)))
    return centre_of_resized(image, whole, (width, height))
