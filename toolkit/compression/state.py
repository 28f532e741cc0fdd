"""A network between two passes: its weights, and what has been done to them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from modelpress.export.errors import InputError
from modelpress.export.shown import Facts, Shown
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.quantization.quantizers import QuantizerSpec
from modelpress.toolkit.data.data_set import DataSet
from modelpress.toolkit.networks.inputs import Inputs, image_inputs
from modelpress.toolkit.recipe import ModelOptions, NormalisationOptions

_KINDS = {"float32": torch.float32, "int64": torch.int64}  # of inputs, as data of any kind come to a network


@dataclass(frozen=True)
class InputContract:
    """What the network was shown: needed by whoever runs it later.

    Attributes:
        dataset: Its name; None where only the normalisation is known.
        class_names: Empty where they are not known.
        mean: Per channel, in units of pixel / 255; of what is no pixel, along the second axis, and empty where values
            are taken as they are.
        std: Likewise.
        own: Of data of the user's own: how they were split and scaled, and the fingerprint of the test examples.

    Raises:
        InputError: Mean and std are of different lengths, empty (of pixels) or not finite, or a std is not above 0.
    """

    dataset: str | None
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    own: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not self.mean and not self.std and not self.of_pixels:
            return
        finite = all(map(isfinite, (*self.mean, *self.std)))
        if not self.mean or len(self.mean) != len(self.std) or not finite or min(self.std) <= 0:
            raise InputError(
                f"images are normalised by mean {self.mean} and std {self.std}; expected as many finite numbers in "
                "both, and a std above 0"
            )

    @classmethod
    def of(cls, images: DataSet) -> "InputContract":
        """The contract of networks trained on this image set."""
        return cls(images.name, images.class_names, images.mean, images.std, _own_facts(images))

    @classmethod
    def of_normalisation(cls, options: NormalisationOptions) -> "InputContract":
        """The contract of a network of which nothing else is known."""
        return cls(None, (), options.mean, options.std)

    def completed(self, images: DataSet) -> "InputContract":
        """The data set filled in where it is not known."""
        return (
            self
            if self.dataset is not None
            else replace(self, dataset=images.name, class_names=images.class_names, own=_own_facts(images))
        )

    @property
    def of_pixels(self) -> bool:
        """Whether mean and deviation are those of pixels."""
        return self.own is None or bool(self.own.get("pixels", True))

    def example(self) -> Inputs:
        """A call of two examples, all zeros.

        Raises:
            KeyError: What is said of the inputs is damaged.
            TypeError: Likewise.
        """
        if self.own is None or "inputs" not in self.own:
            return image_inputs()
        zeros = {
            str(name): torch.zeros(2, *map(int, shape), dtype=_KINDS[kind])
            for name, (kind, *shape) in self.own["inputs"].items()
        }
        return Inputs.of(zeros if len(zeros) > 1 else next(iter(zeros.values())))

    def facts(self) -> dict[str, Any]:
        """For a file."""
        known = {key: value for key, value in vars(self).items() if key != "own"}
        return known if self.own is None else {**known, "own": dict(self.own)}

    def shown(self, images: DataSet) -> DataSet:
        """The images, normalised as the network expects them."""
        return replace(images, mean=self.mean, std=self.std)


def _own_facts(data: DataSet) -> dict[str, Any] | None:
    """What a model says of data of the user's own; None of named sets."""
    if not data.is_own:
        return None
    first, *others = data.test.inputs.items()
    kinds = {
        first[0]: "float32" if data.mean else str(first[1].dtype),
        **{k: str(v.dtype) for k, v in others},
    }
    inputs = {name: [kind, *data.test.inputs[name].shape[1:]] for name, kind in kinds.items()}
    facts = {"pixels": data.of_images, "inputs": inputs, "fingerprint": data.fingerprint()}
    return {**data.description, **facts}


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

    @property
    def removes_channels(self) -> bool:
        """Whether what was pruned are whole channels."""
        pruning = self.history.get("prune", {})
        return pruning.get("granularity") == "channel" or pruning.get("method") == "group-lasso"
