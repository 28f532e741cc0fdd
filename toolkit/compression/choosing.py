"""Which layers a recipe's patterns mean: by name, or by the part they play in the network."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from torch import nn

from modelpress.export.errors import InputError
from modelpress.export.graphs.roles import ROLES, Role, roles_of_weights
from modelpress.toolkit.compression.drawing import draw
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.networks.inputs import Inputs
from modelpress.toolkit.networks.layers import layers_with_weights, matching
from modelpress.toolkit.recipe_sections import ROLE

V = TypeVar("V")


def layers_in_role(network: nn.Module, inputs: Inputs) -> dict[Role, list[str]]:
    """Names of the first layers, the last ones, those that project a shortcut, and the depthwise ones, by the graph.

    Raises:
        ModelError: The network cannot be exported.
    """
    drawing = draw(network, inputs)
    parameters = dict(network.named_parameters())
    name_at, shape_at = {}, {}
    for name, layer in layers_with_weights(network).items():
        if layer.parameter in drawing.places:
            place = drawing.places[layer.parameter]
            name_at[place], shape_at[place] = name, parameters[layer.parameter].shape

    found = roles_of_weights(drawing.graph.graph, shape_at)
    return {role: [name_at[place] for place in places] for role, places in found.items()}


def layers_chosen(state: NetworkState, pattern: str, among: Iterable[str] | None = None) -> list[str]:
    """The layers that a pattern of a recipe means.

    Args:
        state: Whose layers.
        pattern: Shell-style, of names; or ``role:first``, ``role:last``, ``role:shortcut``, ``role:depthwise``, which
            may mean none.
        among: Names to choose from; None: all layers.

    Raises:
        InputError: A name pattern fits no layer, or there is no such role.
    """
    names = list(layers_with_weights(state.network)) if among is None else list(among)
    if not pattern.startswith(ROLE):
        return matching(names, pattern)

    wanted = pattern.removeprefix(ROLE)
    if wanted not in ROLES:
        raise InputError(f"{pattern}: there is no such part; expected {', '.join(ROLE + r for r in ROLES)}")
    in_role = set(layers_in_role(state.network, state.inputs)[wanted])
    return [name for name in names if name in in_role]


def layers_left(state: NetworkState, layers: Mapping[str, V], patterns: Iterable[str]) -> dict[str, V]:
    """The layers that none of the patterns means.

    Raises:
        InputError: As `layers_chosen`.
    """
    excluded = {name for pattern in patterns for name in layers_chosen(state, pattern, layers)}
    return {name: value for name, value in layers.items() if name not in excluded}
