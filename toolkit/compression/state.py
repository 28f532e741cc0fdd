"""A network between two passes: its weights, and what has been done to them."""

from collections import Counter
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

from torch import Tensor, nn

from modelpress.export.errors import InputError
from modelpress.export.shown import Facts, Shown
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.quantization.quantizers import QuantizerSpec
from modelpress.toolkit.data.image_set import ImageSet
from modelpress.toolkit.networks.inputs import Inputs, image_inputs
from modelpress.toolkit.recipe import ModelOptions, NormalisationOptions


@dataclass(frozen=True)
class InputContract:
    """What the network was shown: needed by whoever runs it later.

    Attributes:
        dataset: Its name; None where only the normalisation is known.
        class_names: Empty where they are not known.
        mean: Per channel, in units of pixel / 255.
        std: Per channel, in units of pixel / 255.

    Raises:
        InputError: Mean and std are of different lengths, empty or not finite, or a std is not above 0.
    """

    dataset: str | None
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        finite = all(map(isfinite, (*self.mean, *self.std)))
        if not self.mean or len(self.mean) != len(self.std) or not finite or min(self.std) <= 0:
            raise InputError(
                f"images are normalised by mean {self.mean} and std {self.std}; expected as many finite numbers in "
                "both, and a std above 0"
            )

    @classmethod
    def of(cls, images: ImageSet) -> "InputContract":
        """The contract of networks trained on this image set."""
        return cls(images.name, images.class_names, images.mean, images.std)

    @classmethod
    def of_normalisation(cls, options: NormalisationOptions) -> "InputContract":
        """The contract of a network of which nothing else is known."""
        return cls(None, (), options.mean, options.std)

    def completed(self, images: ImageSet) -> "InputContract":
        """The data set filled in where it is not known."""
        return (
            self
            if self.dataset is not None
            else replace(self, dataset=images.name, class_names=images.class_names)
        )

    def shown(self, images: ImageSet) -> ImageSet:
        """The images, normalised as the network expects them."""
        return replace(images, mean=self.mean, std=self.std)


@dataclass(frozen=True, repr=False)
class NetworkState(Shown):
    """A network between two passes.

    Attributes:
        network: Dense parameters; removed weights are exactly 0.0.
        model: Its architecture; None for a network of the user's own.
        masks: Per pruned layer, true = kept.
        quantizers: Per quantized layer.
        grids: Per layer, the state of grids that do not follow from the weights.
        contract: What it was trained on; None for files from elsewhere.
        history: What each pass did, for the manifest.
        notes: What was done to a checkpoint from elsewhere when it was read, to be told once.
        inputs: One call of it; its graph is drawn by that.
    """

    network: nn.Module
    model: ModelOptions | None
    masks: dict[str, Tensor] = field(default_factory=dict)
    quantizers: dict[str, QuantizerSpec] = field(default_factory=dict)
    grids: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    contract: InputContract | None = None
    history: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    inputs: Inputs = field(default_factory=image_inputs)

    def summary(self) -> Facts:
        """What there is to say in a few lines."""
        widths = Counter(spec.bits for spec in self.quantizers.values())
        return {
            "network": self.architecture,
            "trained on": (self.contract and self.contract.dataset) or "unknown",
            "pruned": f"{len(self.masks)} layers",
            "quantized": ", ".join(f"{n} in {bits} bits" for bits, n in sorted(widths.items())) or "none",
            "passes": ", ".join(self.history) or "none",
        }

    @property
    def architecture(self) -> str:
        """What the network is called."""
        if self.model is None:
            return type(self.network).__name__
        if self.model.factory is not None:
            return self.model.factory
        return f"{self.model.arch}, shortcut {self.model.shortcut}" if self.model.is_ours else self.model.arch

    def compressed(self) -> CompressedNetwork:
        """The network with masks and quantizers in its forward pass."""
        return CompressedNetwork(self.network, masks=self.masks, quantizers=self.quantizers, grids=self.grids)

    @property
    def parameter_precision(self) -> str:
        """Of scales and biases in the file: ``float32``, or ``float16`` where that was tried and kept."""
        return str(self.history.get("parameters", {}).get("precision", "float32"))
