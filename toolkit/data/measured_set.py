"""The test images that a finished model is measured on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modelpress.export.errors import InputError
from modelpress.toolkit.data.image_set import ImageSet
from modelpress.toolkit.data.registry import load_image_set


@dataclass(frozen=True)
class MeasuredSet:
    """Which data set, as far as the user said.

    Attributes:
        dataset: Its name; None: the one that the model's metadata name.
        data_dir: Its folder, or None.
    """

    dataset: str | None = None
    data_dir: str | None = None

    @property
    def is_asked_for(self) -> bool:
        """Whether the user said anything; then nothing that goes wrong is passed over."""
        return self.dataset is not None or self.data_dir is not None

    def load(
        self,
        model: Path,
        trained_on: str | None,
        *,
        check: Callable[[ImageSet], None],
        without: Callable[[str], None],
    ) -> ImageSet | None:
        """Test images; None where none were asked for and those of the model cannot be had or do not suit.

        Args:
            model: The file, for messages.
            trained_on: The data set that its metadata name.
            check: Raises InputError where the images do not suit.
            without: Told why there are none.

        Raises:
            InputError: Images were asked for, and are missing, do not suit, or cannot be named.
        """
        name = self.dataset or trained_on
        if name is None and self.data_dir is not None:
            raise InputError(
                f"{model} does not say what it was trained on: name the data set (--dataset cifar10)"
            )
        if name is None or (name == "cifar10" and not self.is_asked_for):
            without("no data set given (--dataset, --data-dir)")
            return None

        try:
            images = load_image_set(name, folder=self.data_dir, test_only=True)
            if not len(images.test):
                raise InputError(f"the data set {images.name} holds no test images")
            check(images)
        except InputError as error:
            if self.is_asked_for:
                raise
            without(str(error))
            return None

        return images
