"""What a recipe does with every layer of a network, told before any training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelpress.export.graphs.roles import Role
from modelpress.export.shown import Facts, Shown
from modelpress.toolkit.compression.drawing import draw
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.pruning.removal import prunable_layers
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.networks.layers import layers_with_weights, parametrized_weights
from modelpress.toolkit.recipe import Recipe


@dataclass(frozen=True)
class LayerPlan:
    """What is done with one weight.

    Attributes:
        name: Of the layer, as in recipes.
        kind: Class of its module.
        shape: Of the parameter.
        pruned: How it is pruned; empty where it is not.
        bits: Width of its codes; None where it stays in floating point.
        reason: Why it is not pruned, not quantized, or not in the file.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    pruned: str
    bits: int | None
    reason: str


@dataclass(frozen=True, repr=False)
class CompressionReport(Shown):
    """Every weight of a network, in its order.

    Attributes:
        layers: One plan each.
        exporter: Which of torch's exporters draws the graph.
    """

    layers: tuple[LayerPlan, ...]
    exporter: str

    def summary(self) -> Facts:
        """A line a layer."""
        return {
            layer.name: ", ".join(
                part
                for part in (
                    f"{layer.kind} {'x'.join(map(str, layer.shape))}",
                    layer.pruned,
                    f"{layer.bits} bits" if layer.bits else "float",
                    layer.reason,
                )
                if part
            )
            for layer in self.layers
        }


def report_of(
    state: NetworkState, network: CompressedNetwork, recipe: Recipe, roles: Mapping[Role, Sequence[str]]
) -> CompressionReport:
    """What becomes of every weight.

    Args:
        state: The network, drawn already.
        network: With masks and quantizers.
        recipe: What was asked for.
        roles: Names by the part they play.
    """
    drawing = draw(state.network, state.inputs)
    prunable = set(prunable_layers(state, recipe.prune)) if recipe.prune.sparsity else set()
    part = {name: role for role, names in roles.items() for name in names}
    plans = []
    for name, layer in layers_with_weights(state.network).items():
        in_graph = layer.parameter in drawing.places
        bits = network.quantizers[name].bits if name in network.quantizers else None
        reasons = []
        if not in_graph:
            reasons.append("the graph does not read it: it is not in the file")
        if name not in prunable and recipe.prune.sparsity:
            reasons.append(f"not pruned: {_why(name, part, 'prune.exclude')}")
        if bits is None:
            reasons.append(f"not quantized: {_why(name, part, 'quantize.layers')}")
        pruned = _how(recipe) if name in prunable else ""
        kind, shape = type(layer.owner).__name__, tuple(getattr(layer.owner, layer.attribute).shape)
        plans.append(LayerPlan(name, kind, shape, pruned, bits, "; ".join(reasons)))
    for name, module in parametrized_weights(state.network).items():
        reason = "its weight is computed from others (a parametrization): it stays in floating point"
        weight: Any = module.weight  # a property that torch's parametrization makes
        shape = tuple(weight.shape)
        plans.append(LayerPlan(name, type(module).__name__, shape, "", None, reason))
    return CompressionReport(tuple(plans), drawing.exporter)


def _how(recipe: Recipe) -> str:
    prune = recipe.prune
    when = "by a penalty" if prune.by_penalty else "step by step" if prune.scheduled else "at once"
    return f"pruned {when} ({prune.sparsity:.0%} of all)"


def _why(name: str, part: Mapping[str, Role], key: str) -> str:
    """The recipe's own words where the layer's part in the network tells."""
    return f"{key} leaves out the {part[name]} layers" if name in part else f"{key} says so"
