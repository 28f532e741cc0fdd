"""A network whose weights are masked and quantized on the way into its forward pass."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from export.errors import InputError
from toolkit.layers import weight_layers
from toolkit.quantization.quantizers import Grid, QuantizerSpec, fake_quantize, min_max_grid


class CompressedNetwork(nn.Module):
    """Wraps a network without changing it: its parameters stay dense floats that an optimiser may move.

    Args:
        network: Any network of convolutions and linear layers.
        masks: Per layer, boolean, true = kept; a removed weight is exactly 0.0 in every forward pass and
            receives no gradient.
        quantizers: Per layer; layers without one stay in floating point.

    Raises:
        InputError: A mask has another shape than its weight.
    """

    def __init__(
        self, network: nn.Module, *, masks: dict[str, Tensor], quantizers: dict[str, QuantizerSpec]
    ) -> None:
        super().__init__()
        self.network = network
        self.masks = masks
        self.quantizers = quantizers
        self._layers = weight_layers(network)
        for name, mask in masks.items():
            if mask.shape != self._layers[name].shape:
                raise InputError(
                    f"{name}: mask has shape {tuple(mask.shape)}, weight {tuple(self._layers[name].shape)}"
                )

    def forward(self, x: Tensor) -> Tensor:
        """As the network's own, with effective weights."""
        weights = {f"{name}.weight": weight for name, weight in self.effective_weights().items()}
        return functional_call(self.network, weights, (x,))

    def effective_weights(self) -> dict[str, Tensor]:
        """What the forward pass computes with, for every masked or quantized layer."""
        return {
            name: self.effective_weight(name)
            for name in self._layers
            if name in {*self.masks, *self.quantizers}
        }

    def grid(self, name: str) -> Grid:
        """The quantization grid of a layer, from its present weights."""
        return min_max_grid(self.masked(name), self.quantizers[name])

    def masked(self, name: str) -> Tensor:
        """The dense floats of a layer with removed weights at 0.0."""
        weight = self._layers[name]
        return torch.where(self.masks[name], weight, 0.0) if name in self.masks else weight

    @torch.no_grad()
    def settle(self) -> None:
        """Write the zeros of the masks into the network's own parameters."""
        for name, weight in self._layers.items():
            weight.copy_(self.masked(name))

    def effective_weight(self, name: str) -> Tensor:
        """What the forward pass computes with in one layer."""
        weight = self.masked(name)
        if name not in self.quantizers:
            return weight
        quantized = fake_quantize(weight, min_max_grid(weight, self.quantizers[name]))
        return torch.where(self.masks[name], quantized, 0.0) if name in self.masks else quantized
