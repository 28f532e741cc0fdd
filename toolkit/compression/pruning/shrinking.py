"""Channels that masks remove altogether, taken out of the torch network with everything that hangs on them."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from modelpress.export.errors import ModelpressError
from modelpress.export.graphs.channels.following import followed
from modelpress.export.graphs.channels.removable import removable_groups
from modelpress.export.graphs.channels.shrinking import sizes_of
from modelpress.export.graphs.channels.trace import Claim, Trace
from modelpress.export.quantized import QuantizedModel, dense_array
from modelpress.toolkit.compression.drawing import draw
from modelpress.toolkit.compression.freeze import drawn_model
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.model_files.shrinking import sizes_in_words
from modelpress.toolkit.networks.inputs import Inputs
from modelpress.toolkit.networks.layers import layers_with_weights
from modelpress.toolkit.networks.narrowing import Stays, entries, kept_counts, narrow
from modelpress.toolkit.networks.outputs import flat_outputs

LARGEST_DIFFERENCE = 1e-9  # of the range of an output, in double precision: the same sums in another order


@dataclass(frozen=True)
class Narrowed:
    """A network without the channels that were removed.

    Attributes:
        state: The smaller network; the very one that was given where nothing could be taken out.
        stays: Which entries of which tensors are left, see `narrow`; empty where nothing could be taken out.
        words: What was done, or why nothing was.
    """

    state: NetworkState
    stays: Stays
    words: str


def narrowed(state: NetworkState) -> Narrowed:
    """Take out channels that are zero, or that nothing reads.

    They are found in the network's drawing, as in any ONNX graph; what they are entries of is found again in the
    network. The smaller network is accepted only if it computes, in double precision, what the masked one does.

    Args:
        state: Not quantized; it is left as it is.

    Source: Fang et al. 2023, "DepGraph: Towards Any Structural Pruning", arXiv:2301.12900, for groups by dependency.
    """
    try:
        model = drawn_model(state.compressed(), state.inputs)
    except ModelpressError as error:
        return Narrowed(state, {}, f"channels stay, masked: {error}")
    stays = _stays(state, model)
    if not stays:
        return Narrowed(state, {}, "no channel can be taken out: each is needed by a layer that reads it")

    try:
        small = _smaller(state, stays)
        difference = _difference(state, small)
        smaller_model = drawn_model(small.compressed(), small.inputs)
    except Exception as error:  # whatever a forward pass raises that counts channels by itself
        return Narrowed(state, {}, f"channels stay, masked: the smaller network does not run: {error}")
    if not difference <= LARGEST_DIFFERENCE:
        return Narrowed(
            state,
            {},
            f"channels stay, masked: without them outputs differ by {difference:.1e} of their range",
        )
    (had, did), (has, does) = sizes_of(model), sizes_of(smaller_model)
    words = sizes_in_words((had, has), (did, does), difference)
    small.history["shrink"] |= {"parameters": [had, has], "multiplications": [did, does]}
    return Narrowed(small, stays, f"channels taken out: {words}")


def _stays(state: NetworkState, model: QuantizedModel) -> Stays:
    """What is left of each parameter and buffer that loses something."""
    trace = followed(model, evenly=True)
    axes = _axes_in_network(state, model)

    # nothing makes up for a constant here, and what is in no parameter cannot be taken out of one
    for sink in trace.sinks:
        counts = sink.taken.known & (sink.taken.value != 0) & sink.touched.any(axis=0)
        trace.groups.fix(sink.taken.slots[counts])
    for claim in trace.claims:
        if claim.tensor not in axes:
            trace.groups.fix(claim.slots)

    removed = removable_groups(trace)
    gone = np.array(sorted(removed), np.int64)
    stays: dict[str, dict[int, Tensor]] = {}
    for claim, (name, axis) in _places(trace, axes):
        alive = ~np.isin(trace.groups.roots(claim.slots), gone)
        if not alive.all():
            stays.setdefault(name, {})[axis] = torch.from_numpy(alive)
    return stays


def _places(trace: Trace, axes: Mapping[str, tuple[str, bool]]) -> Iterator[tuple[Claim, tuple[str, int]]]:
    for claim in trace.claims:
        if claim.tensor in axes:
            name, turned = axes[claim.tensor]
            yield claim, (name, 1 - claim.axis if turned else claim.axis)


def _axes_in_network(state: NetworkState, model: QuantizedModel) -> dict[str, tuple[str, bool]]:
    """By tensor of the graph: the parameter or buffer, and whether it is transposed there."""
    network = state.compressed()
    values = dict((*network.network.named_parameters(), *network.network.named_buffers()))
    layers = {layer.parameter: layer for layer in layers_with_weights(network.network).values()}

    found = {}
    for name, place in draw(state.network, state.inputs).places.items():
        if place not in model.tensors:
            continue
        layer = layers.get(name)
        own = values[name] if layer is None else layer.as_stored(network.masked(layer.name))
        here, there = own.detach().cpu().float().numpy(), np.asarray(dense_array(model.tensors[place]))
        if np.array_equal(here, there):
            found[place] = name, False
        elif here.ndim == 2 and np.array_equal(here.T, there):
            found[place] = name, True
    return found


def _smaller(state: NetworkState, stays: Stays) -> NetworkState:
    network = copy.deepcopy(state.network)
    masks = smaller_masks(state.network, state.masks, stays)
    counts = kept_counts(network, stays)
    narrow(network, stays)
    history = {**state.history, "shrink": {"counts": counts}}
    return replace(state, network=network, masks=masks, history=history)


def smaller_masks(network: nn.Module, masks: Mapping[str, Tensor], stays: Stays) -> dict[str, Tensor]:
    """Masks of what is left; those that keep all of it are dropped.

    Args:
        network: As it was before.
        masks: By layer.
        stays: See `narrow`.
    """
    layers = layers_with_weights(network)
    small = {}
    for name, mask in masks.items():
        layer = layers[name]
        stored = entries(layer.as_stored(mask), stays.get(layer.parameter, {}))
        small[name] = (stored.movedim(layer.axis, 0) if layer.axis else stored).contiguous()
    return {name: mask for name, mask in small.items() if not mask.all()}


@torch.no_grad()
def _difference(before: NetworkState, after: NetworkState) -> float:
    """Of any output for random inputs over its range, the largest."""
    inputs = _random(before.inputs)
    expected, found = (flat_outputs(inputs.call(_in_double(state))) for state in (before, after))
    return max((_apart(a, b) for a, b in zip(expected, found, strict=True)), default=0.0)


def _in_double(state: NetworkState) -> CompressedNetwork:
    return copy.deepcopy(state.compressed()).cpu().double().eval()


def _random(inputs: Inputs) -> Inputs:
    """Normal numbers in the place of floating-point ones, in double precision."""
    generator = torch.Generator().manual_seed(0)

    def other(value: object) -> object:
        if isinstance(value, Tensor) and value.is_floating_point():
            return torch.randn(value.shape, generator=generator, dtype=torch.float64)
        return value

    on_cpu = inputs.on("cpu")
    return Inputs(tuple(map(other, on_cpu.arguments)), {k: other(v) for k, v in on_cpu.named.items()})


def _apart(expected: Tensor, found: Tensor) -> float:
    if expected.shape != found.shape or not expected.isfinite().all():
        return float("inf")
    if not expected.numel():
        return 0.0

    # what all examples have in common says nothing
    varies = expected if expected.ndim == 0 or len(expected) == 1 else expected - expected.mean(dim=0)
    size, apart = float(varies.abs().max()), float((expected - found).abs().max())
    return apart / size if size else apart
