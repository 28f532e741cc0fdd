"""The scale of weights that a penalty has made small, given back where a batch norm makes up for it.

A batch norm undoes the scale of the weights before it, so that a penalty shrinks them at no cost to the loss, those
that stay with those that go. What counts for the training that follows is the step relative to the weights: it grows
with the inverse square of their length, and tears a network apart whose weights are short (van Laarhoven 2017, "L2
Regularization versus Batch and Weight Normalization", arXiv:1706.05350).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelpress.export.graphs.batch_norm import normalised_layers
from modelpress.toolkit.compression.drawing import draw
from modelpress.toolkit.compression.freeze import drawn_model
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.networks.layers import layers_with_weights

_SHORTER = 0.999  # of its length, that a weight has to have become


@dataclass(frozen=True)
class _Normalised:
    """A weight in front of a batch norm.

    Attributes:
        scaled: The weight, and what is scaled by the same factor: running mean, and bias if there is one.
        variance: Running.
        epsilon: Of the batch norm.
    """

    scaled: list[Tensor]
    variance: Tensor
    epsilon: float


def lengths(network: nn.Module) -> dict[str, float]:
    """Euclidean length of every parameter, by name."""
    return {name: float(p.detach().double().norm()) for name, p in network.named_parameters()}


@torch.no_grad()
def restore_lengths(state: NetworkState, before: Mapping[str, float]) -> dict[str, float]:
    """Scale weights that have become shorter to the length they had, where a batch norm follows; zeros stay zeros.

    The network computes what it did: statistics of the batch norm are scaled along, the variance to
    ``factor**2 * (variance + epsilon) - epsilon``.

    Args:
        state: Its network is changed.
        before: From `lengths`, of the same network.

    Returns:
        The factor of each weight that was scaled, by name of its parameter.

    Raises:
        ModelError: The network cannot be drawn.
    """
    factors = {}
    for name, found in _normalised(state):
        now = float(found.scaled[0].double().norm())
        if 0 < now < _SHORTER * before[name]:
            factors[name] = factor = before[name] / now
            for tensor in found.scaled:
                tensor.mul_(factor)
            variance = factor**2 * (found.variance.double() + found.epsilon) - found.epsilon
            found.variance.copy_(variance)
    return factors


def normalised_layers_of(state: NetworkState) -> set[str]:
    """Names of the layers in front of a batch norm, whose scale it undoes.

    Raises:
        ModelError: The network cannot be drawn.
    """
    names = {layer.parameter: layer.name for layer in layers_with_weights(state.network).values()}
    return {names[parameter] for parameter, _ in _normalised(state) if parameter in names}


def _normalised(state: NetworkState) -> Iterator[tuple[str, _Normalised]]:
    network = state.network
    tensors: dict[str, Tensor] = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    names = {place: name for name, place in draw(network, state.inputs).places.items()}

    for layer in normalised_layers(drawn_model(state.compressed(), state.inputs)):
        needed = (layer.weight, layer.mean, layer.variance, *filter(None, [layer.bias]))
        if all(place in names for place in needed):
            weight, mean, variance, *bias = (tensors[names[place]] for place in needed)
            yield names[layer.weight], _Normalised([weight, mean, *bias], variance, layer.epsilon)
