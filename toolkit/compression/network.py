"""A network whose weights are masked and quantized on the way into its forward pass."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from modelpress.export.errors import InputError
from modelpress.export.least_error import least_error_grid
from modelpress.toolkit.compression.quantization.learned_step import GridParameters
from modelpress.toolkit.compression.quantization.quantizers import (
    Grid,
    QuantizerSpec,
    fake_quantize,
    min_max_grid,
)
from modelpress.toolkit.networks.layers import layers_with_weights


class CompressedNetwork(nn.Module):
    """Wraps a network without changing it: its parameters stay dense floats that an optimiser may move.

    Masks are buffers of this module and kept grids are submodules, so that its state dict holds all that training
    may change.

    Args:
        network: Any network; its weights are those of `layers_with_weights`.
        masks: Per layer, boolean, true = kept; a removed weight is exactly 0.0 in every forward pass and
            receives no gradient.
        quantizers: Per layer; layers without one stay in floating point.
        grids: State of kept grids, by layer, as `kept_grids` returns them; others start from the weights.

    Raises:
        InputError: A mask has another shape than its weight.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        masks: Mapping[str, Tensor],
        quantizers: Mapping[str, QuantizerSpec],
        grids: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.quantizers = dict(quantizers)
        self.quantized = True
        self._layers = layers_with_weights(network)
        self._recurrent = any(isinstance(module, nn.RNNBase) for module in network.modules())

        self._masks, self._grids = nn.Module(), nn.ModuleDict()
        for name, mask in masks.items():
            weight = self._layers[name].weight
            if mask.shape != weight.shape:
                raise InputError(f"{name}: mask has shape {tuple(mask.shape)}, weight {tuple(weight.shape)}")
            self._masks.register_buffer(_key(name), mask)

        # grids that follow from the weights have no state: the forward pass takes them anew
        for name, spec in self.quantizers.items():
            if not spec.follows_weights:
                stored = None if grids is None else grids.get(name)
                grid = self._grid_of_weights(name) if stored is None else self._unit_grid(name)
                parameters = GridParameters(grid).to(self._layers[name].weight.device)
                if stored is not None:
                    parameters.load_state_dict(dict(stored))
                self._grids[_key(name)] = parameters

    @property
    def masks(self) -> dict[str, Tensor]:
        """By layer, true = kept."""
        return {
            name: self._masks.get_buffer(_key(name))
            for name in self._layers
            if self._mask_of(name) is not None
        }

    def kept_grids(self) -> dict[str, dict[str, Tensor]]:
        """Copies of the state of all grids that do not follow from the weights, by layer."""
        return {
            name: {key: value.detach().clone() for key, value in self._kept_grid(name).state_dict().items()}
            for name in self.quantizers
            if _key(name) in self._grids
        }

    def grid_parameters(self) -> list[nn.Parameter]:
        """Scales and centres that training moves."""
        return [parameter for parameter in self._grids.parameters() if parameter.requires_grad]

    def dense_weight(self, layer: str) -> Tensor:
        """The parameter itself, output channels first, which masks and grids do not touch."""
        return self._layers[layer].weight

    def set_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Replace the masks of layers that have one already."""
        for name, mask in masks.items():
            self._masks.get_buffer(_key(name)).copy_(mask)

    def renew_grids(self) -> None:
        """Take all kept grids from the present weights."""
        for name in self.quantizers:
            if _key(name) in self._grids:
                self._kept_grid(name).take(self._grid_of_weights(name))

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """As the network's own, with effective weights."""
        weights = {
            self._layers[name].parameter: self._layers[name].as_stored(weight)
            for name, weight in self.effective_weights().items()
        }
        if not self._recurrent:
            return functional_call(self.network, weights, inputs, named)
        with _recurrent_weights(self.network, weights):
            return functional_call(self.network, weights, inputs, named)

    def effective_weights(self) -> dict[str, Tensor]:
        """What the forward pass computes with, for every masked or quantized layer."""
        return {
            name: self.effective_weight(name)
            for name in self._layers
            if self._mask_of(name) is not None or name in self.quantizers
        }

    def grid(self, name: str) -> Grid:
        """The quantization grid of a layer, kept or from its present weights."""
        if _key(name) in self._grids:
            return self._kept_grid(name).grid()
        return self._grid_of_weights(name)

    def masked(self, name: str) -> Tensor:
        """The dense floats of a layer with removed weights at 0.0."""
        weight, mask = self._layers[name].weight, self._mask_of(name)
        return weight if mask is None else torch.where(mask, weight, 0.0)

    @torch.no_grad()
    def settle(self) -> None:
        """Write the zeros of the masks into the network's own parameters."""
        for name in self.masks:
            self._layers[name].weight.copy_(self.masked(name))

    def effective_weight(self, name: str) -> Tensor:
        """What the forward pass computes with in one layer."""
        weight, mask = self.masked(name), self._mask_of(name)
        if name not in self.quantizers or not self.quantized:
            return weight

        if _key(name) in self._grids:
            quantized = self._kept_grid(name)(weight, mask)
        else:
            quantized = fake_quantize(weight, self._grid_of_weights(name))

        # zero need not be a value of the grid: what is removed is put back to it
        return quantized if mask is None else torch.where(mask, quantized, 0.0)

    def _grid_of_weights(self, name: str) -> Grid:
        spec = self.quantizers[name]
        search = least_error_grid if spec.range == "mse" else min_max_grid
        return search(self.masked(name).detach().float(), spec, kept=self._mask_of(name))

    def _unit_grid(self, name: str) -> Grid:
        """A grid of the layer's shape, to be filled."""
        spec = self.quantizers[name]
        ones = torch.ones(len(self._layers[name].weight) if spec.per_channel else ())
        return Grid(spec, ones, None if spec.symmetric else -ones)

    def _mask_of(self, name: str) -> Tensor | None:
        return self._masks._buffers.get(_key(name))

    def _kept_grid(self, name: str) -> GridParameters:
        grid = self._grids[_key(name)]
        assert isinstance(grid, GridParameters)
        return grid


@contextmanager
def _recurrent_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let recurrent modules compute with these weights: they keep a list of their own beside their parameters."""
    kept = []
    for name, module in network.named_modules():
        if isinstance(module, nn.RNNBase):
            prefix = f"{name}." if name else ""
            kept.append((module, module._flat_weights))
            module._flat_weights = [
                weights.get(prefix + own, getattr(module, own)) for own in module._flat_weights_names
            ]

    try:
        yield
    finally:
        for module, own_weights in kept:
            module._flat_weights = own_weights


def _key(layer: str) -> str:
    """A layer's name where modules allow no dots."""
    return layer.replace(".", "/")
