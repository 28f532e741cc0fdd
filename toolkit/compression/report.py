"""What a recipe does with every layer of a network, told before any training."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

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

    def told(self) -> str:
        """In a line."""
        parts = (
            f"{self.kind} {'x'.join(map(str, self.shape))}",
            self.pruned,
            f"{self.bits} bits" if self.bits else "float",
            self.reason,
        )
        return ", ".join(filter(None, parts))


@dataclass(frozen=True, repr=False)
class CompressionReport(Shown):
    """Every weight of a network, in its order.

    Attributes:
        layers: One plan each.
        exporter: Which of torch's exporters draws the graph.
        others: Parameters of several axes that are no layer's weight, as class tokens are: all stay in float.
        batch: The only batch that the file will take; None for any.
    """

    layers: tuple[LayerPlan, ...]
    exporter: str
    others: tuple[LayerPlan, ...] = ()
    batch: int | None = None

    def summary(self) -> Facts:
        """A line a layer, and one on what holds for the whole."""
        held = (
            f"{self.batch} examples, as in the example input: the network's code makes a number of the batch, as "
            "len(x) does; take x.shape[0]"
        )
        layers = {layer.name: layer.told() for layer in (*self.layers, *self.others)}
        return layers if self.batch is None else {"batch": held, **layers}


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
    others = tuple(_of_no_layer(state.network))
    return CompressionReport(tuple(plans), drawing.exporter, others, drawing.batch)


def _of_no_layer(network: nn.Module) -> Iterator[LayerPlan]:
    """Parameters of several axes that no layer with weights holds: the rest of a file that counts."""
    computed = {id(p) for module in parametrized_weights(network).values() for p in module.parameters()}
    known = computed | {id(getattr(w.owner, w.attribute)) for w in layers_with_weights(network).values()}
    reason = "a parameter of no layer whose weights are coded: it stays in floating point"
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1 and id(parameter) not in known:
            yield LayerPlan(name, "Parameter", tuple(parameter.shape), "", None, reason)


def _how(recipe: Recipe) -> str:
    prune = recipe.prune
    when = "by a penalty" if prune.by_penalty else "step by step" if prune.scheduled else "at once"
    return f"pruned {when} ({prune.sparsity:.0%} of all)"


def _why(name: str, part: Mapping[str, Role], key: str) -> str:
    """The recipe's own words where the layer's part in the network tells."""
    return f"{key} leaves out the {part[name]} layers" if name in part else f"{key} says so"
