"""One file format between the stages: a network's weights and what has been done to them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export.errors import InputError
from toolkit.compressed import CompressedNetwork
from toolkit.data.image_set import ImageSet
from toolkit.layers import weight_layers
from toolkit.models.resnet_cifar import DEPTHS, ResNetCifar, Shortcut
from toolkit.quantization.quantizers import QuantizerSpec
from toolkit.recipe import ModelOptions
from toolkit.training.checkpoint import load_into, load_state, save_state


@dataclass(frozen=True)
class InputContract:
    """What the network was shown: needed by whoever runs it later."""

    dataset: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: ImageSet) -> "InputContract":
        """The contract of networks trained on this image set."""
        return cls(images.name, images.class_names, images.mean, images.std)


@dataclass(frozen=True)
class NetworkState:
    """A network between two stages.

    Attributes:
        network: Dense parameters; removed weights are exactly 0.0.
        model: Its architecture.
        masks: Per pruned layer, true = kept.
        quantizers: Per quantized layer.
        contract: What it was trained on; None for files from elsewhere.
        history: What each stage did, for the manifest.
    """

    network: nn.Module
    model: ModelOptions
    masks: dict[str, Tensor] = field(default_factory=dict)
    quantizers: dict[str, QuantizerSpec] = field(default_factory=dict)
    contract: InputContract | None = None
    history: dict[str, Any] = field(default_factory=dict)

    def compressed(self) -> CompressedNetwork:
        """The network with masks and quantizers in its forward pass."""
        return CompressedNetwork(self.network, masks=self.masks, quantizers=self.quantizers)


def new_network(model: ModelOptions, *, seed: int, n_classes: int = 10) -> nn.Module:
    """A freshly initialised network; the same seed gives the same weights on every device."""
    torch.manual_seed(seed)
    shortcut: Shortcut = model.shortcut
    return ResNetCifar(model.arch, shortcut=shortcut, n_classes=n_classes)


def save_network(path: Path, state: NetworkState) -> None:
    """Write one safetensors file; its tensors are a plain state dict, everything else is metadata."""
    compressed = state.compressed()
    compressed.settle()
    contract = state.contract
    save_state(
        path,
        state.network.state_dict(),
        {
            "model": {"arch": state.model.arch, "shortcut": state.model.shortcut},
            "masked": sorted(state.masks),
            "quantizers": {name: vars(spec) for name, spec in state.quantizers.items()},
            "contract": None if contract is None else vars(contract),
            "history": state.history,
        },
    )


def load_network(path: Path, model: ModelOptions) -> NetworkState:
    """Read a network file, or a foreign checkpoint of the architecture `model`.

    Raises:
        InputError: The file is unreadable or does not fit the architecture.
    """
    tensors, metadata = load_state(path)
    if "model" in metadata:
        model = _known_model(path, metadata["model"])
    network = new_network(model, seed=0)
    load_into(network, tensors, path)
    layers = weight_layers(network)
    masks = {name: layers[name].detach() != 0 for name in metadata.get("masked", ())}
    quantizers = {name: QuantizerSpec(**spec) for name, spec in metadata.get("quantizers", {}).items()}
    contract = metadata.get("contract")
    return NetworkState(
        network,
        model,
        masks,
        quantizers,
        None if contract is None else InputContract(**{k: _frozen(v) for k, v in contract.items()}),
        metadata.get("history", {}),
    )


def _known_model(path: Path, stored: dict[str, Any]) -> ModelOptions:
    if stored.get("arch") not in DEPTHS:
        raise InputError(
            f"checkpoint {path} holds a {stored.get('arch')!r}; this version knows {', '.join(DEPTHS)}"
        )
    return ModelOptions(arch=stored["arch"], shortcut=stored["shortcut"])


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
