"""Which channels of a network can only be removed together, read off its drawing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from modelpress.export.graphs.channels.branches import Branch, branch_of
from modelpress.export.graphs.channels.costs import CountedLayer, counted_layers
from modelpress.export.graphs.channels.following import followed
from modelpress.export.graphs.channels.trace import Claim, Role, Trace
from modelpress.toolkit.compression.drawing import draw
from modelpress.toolkit.compression.freeze import drawn_model
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.networks.layers import layers_with_weights
from modelpress.toolkit.recipe import PruneOptions

FIXED = -1  # the group of channels that cannot be removed


@dataclass(frozen=True)
class Coupling:
    """Groups of channels: those that an addition joins, those of a depthwise convolution and its input, and so on.

    Attributes:
        layers: By layer, shape ``(out,)``: the group of each output channel, or `FIXED`.
        shifts: By name of a parameter that makes channels non-zero (biases, both parameters of batch norms), likewise:
            where these and all weights of a group are zero, so are its channels.
        costs: Every layer of the drawing with the groups that it takes and makes, by the same numbers.
        uncounted: Weights of the layers of which shapes are not known, by their names in the drawing.
        branches: Residual branches that may go with all of their channels; their shifts are names of parameters.
    """

    layers: Mapping[str, Tensor]
    shifts: Mapping[str, Tensor] = field(default_factory=dict)
    costs: Sequence[CountedLayer] = ()
    branches: Sequence[Branch] = ()
    uncounted: Sequence[str] = ()

    def removable(self, layers: Iterable[str]) -> set[int]:
        """Groups all of whose layers are among these."""
        chosen = set(layers)
        groups = {int(g) for name in chosen & set(self.layers) for g in self.layers[name]}
        others = {int(g) for name, own in self.layers.items() if name not in chosen for g in own}
        return groups - others - {FIXED}

    def removed(self, masks: Mapping[str, Tensor]) -> set[int]:
        """Groups of which masks keep nothing."""
        groups = {int(g) for own in self.layers.values() for g in own} - {FIXED}
        for name, own in self.layers.items():
            mask = masks.get(name)
            alive = (
                torch.ones(len(own), dtype=torch.bool) if mask is None else mask.flatten(1).any(dim=1).cpu()
            )
            groups -= set(own[alive].tolist())
        return groups


def coupling_for(state: NetworkState, options: PruneOptions) -> Coupling | None:
    """`coupling_of`, where whole channels are removed; else None.

    Raises:
        ModelError: As `coupling_of`.
    """
    return coupling_of(state) if options.of_channels else None


def coupling_of(state: NetworkState) -> Coupling:
    """Follow the network's drawing.

    Raises:
        ModelError: The network cannot be drawn.
    """
    trace = followed(drawn_model(state.compressed(), state.inputs), evenly=True)
    places = draw(state.network, state.inputs).places
    layers = {layer.parameter: layer for layer in layers_with_weights(state.network).values()}

    rows: dict[str, Tensor] = {}
    shifts: dict[str, Tensor] = {}
    claims = {claim.tensor: claim for claim in trace.claims if claim.role in (Role.MAKES, Role.SHIFTS)}
    for parameter, place in places.items():
        claim = claims.get(place)
        layer = layers.get(parameter)
        if layer is not None:
            fixed = torch.full((len(layer.weight),), FIXED)
            rows[layer.name] = fixed if claim is None else _groups(trace, claim)
        elif claim is not None:
            shifts[parameter] = _groups(trace, claim)
    parameters = {place: parameter for parameter, place in places.items()}
    costs, uncounted = counted_layers(trace)
    return Coupling(rows, shifts, costs, list(_branches(trace, rows.values(), parameters)), uncounted)


def _branches(trace: Trace, rows: Iterable[Tensor], parameters: Mapping[str, str]) -> Iterator[Branch]:
    """The branches among sets of groups that one layer makes."""
    for groups in sorted({frozenset(own.tolist()) for own in rows}, key=min):
        branch = None if FIXED in groups else branch_of(trace, groups)
        # what is in no parameter cannot be set to zero
        if branch is not None and all(name in parameters for name in branch.shifts):
            yield Branch(branch.groups, tuple(parameters[name] for name in branch.shifts))


def _groups(trace: Trace, claim: Claim) -> Tensor:
    fixed = trace.groups.fixed()
    roots = trace.groups.roots(claim.slots).tolist()
    return torch.tensor([FIXED if root in fixed else root for root in roots])
