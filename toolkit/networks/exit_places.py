"""Where a network can be left early: by the names of its modules, or at the ends of its stages."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modelpress.export.errors import InputError
from modelpress.toolkit.networks.inputs import Inputs
from modelpress.toolkit.networks.layers import layers_with_weights

_LEAST_LAYERS = 2  # of a stage: a stem of one convolution knows too little


@dataclass(frozen=True)
class ExitPlace:
    """A block after which there is an exit, and what it gives.

    Attributes:
        name: Of the module.
        shape: Of its output; the first axis is the batch.
        channel_axis: Which axis counts the channels.
    """

    name: str
    shape: tuple[int, ...]
    channel_axis: int = 1

    @property
    def channels(self) -> int:
        """How many."""
        return self.shape[self.channel_axis]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def is_image(self) -> bool:
        """Whether it is (N, C, H, W)."""
        return self.ndim == 4


@dataclass(frozen=True)
class _Called:
    """A module that was called, what it gave, and how many layers with weights had been called before."""

    name: str
    output: Any
    n_layers: int


@dataclass(frozen=True)
class ExitPlaces:
    """Where the exits of a network are.

    Attributes:
        places: In the order of the network.
        n_classes: Outputs of its last exit.
        width: Features that its classifier takes: heads need no more.
    """

    places: tuple[ExitPlace, ...]
    n_classes: int
    width: int


def plan_exits(network: nn.Module, inputs: Inputs, after: Sequence[str]) -> ExitPlaces:
    """Call the network once, and find the blocks in it.

    Args:
        network: A classifier; left as it is.
        inputs: One call of it, of at least two examples.
        after: Names of modules; none: the end of every stage but the last, where images become smaller.

    Raises:
        InputError: A name is not there, a block gives nothing that a head could take, there are no stages, or the
            network is no classifier.
    """
    calls, output = _called(network, inputs)
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(
            f"early exits are for classifiers that give (N, classes); {type(network).__name__} gives {shape}"
        )

    names = list(after) if after else _ends_of_stages(network, calls)
    if not names:
        raise InputError(
            f"exits: {type(network).__name__} has only one block: nothing in it makes images smaller after "
            f"{_LEAST_LAYERS} layers or more; name blocks with exits.after, as in {_some_blocks(network, calls)}"
        )
    order = {call.name: place for place, call in enumerate(calls)}
    places = [_place(network, name, calls, inputs.n_examples) for name in dict.fromkeys(names)]
    classifier = list(layers_with_weights(network).values())[-1].weight
    ordered = tuple(sorted(places, key=lambda place: order[place.name]))
    return ExitPlaces(ordered, output.shape[1], classifier.shape[1])


def _called(network: nn.Module, inputs: Inputs) -> tuple[list[_Called], Any]:
    """Every call of a module, in the order in which they end, and the network's output."""
    calls: list[_Called] = []
    layers = {layer.owner for layer in layers_with_weights(network).values()}
    n_layers = 0

    def see(name: str, module: nn.Module, output: Any) -> None:
        nonlocal n_layers
        n_layers += module in layers
        calls.append(_Called(name, output, n_layers))

    hooks = [
        module.register_forward_hook(lambda m, _, output, name=name: see(name, m, output))
        for name, module in network.named_modules()
        if name
    ]
    modes = {module: module.training for module in network.modules()}
    try:
        with torch.no_grad():
            device = next((p.device for p in network.parameters()), torch.device("cpu"))
            output = inputs.on(device).call(network.eval())
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    return calls, output


def _ends_of_stages(network: nn.Module, calls: Sequence[_Called]) -> list[str]:
    """The last block at every size of images but the smallest."""
    of_blocks = set(_blocks(network, calls))
    ends: list[str] = []
    last: _Called | None = None
    began = 0

    for call in calls:
        size = _size(call.output)
        if call.name not in of_blocks or size is None:
            continue
        if last is None or size == _size(last.output):
            last = call
        elif size < (_size(last.output) or 0):
            left = calls[-1].n_layers - last.n_layers
            if min(last.n_layers - began, left) >= _LEAST_LAYERS:
                ends.append(last.name)
            began, last = last.n_layers, call
    return ends


def _blocks(network: nn.Module, calls: Sequence[_Called], prefix: str = "") -> Iterator[str]:
    """The children of the network, and those of a child that is itself a row of blocks of several sizes.

    A child is one if it calls its own children in turn, or holds most layers of the network.
    """
    sizes = {call.name: size for call in calls if (size := _size(call.output)) is not None}
    n_layers = len(layers_with_weights(network))
    for name, child in network.get_submodule(prefix).named_children():
        full = f"{prefix}.{name}" if prefix else name
        inside = {sizes[below] for n, _ in child.named_children() if (below := f"{full}.{n}") in sizes}
        row = isinstance(child, nn.Sequential) or 2 * len(layers_with_weights(child)) > n_layers
        if row and len(inside) > 1:
            yield from _blocks(network, calls, full)
        else:
            yield full


def _size(output: Any) -> int | None:
    """Pixels of images that have more than one; None of anything else."""
    if not isinstance(output, Tensor) or output.ndim != 4:
        return None
    return output.shape[2] * output.shape[3]


def _place(network: nn.Module, name: str, calls: Sequence[_Called], n_examples: int) -> ExitPlace:
    """A block by its name.

    Raises:
        InputError: It is not there, is called more than once or not at all, or gives nothing that a head could take.
    """
    modules = dict(network.named_modules())
    if name not in modules or not name:
        near = difflib.get_close_matches(name, [n for n in modules if n], n=3, cutoff=0.3)
        hint = f"the nearest are {', '.join(near)}" if near else f"as in {_some_blocks(network, calls)}"
        raise InputError(f"exits.after: {type(network).__name__} has no module {name!r}; {hint}")

    own = [call for call in calls if call.name == name]
    if len(own) != 1:
        raise InputError(
            f"exits.after: {name} is called {len(own)} times in a forward pass; expected once: choose a block around it"
        )
    output = own[0].output
    if calls[-1].n_layers - own[0].n_layers < _LEAST_LAYERS:
        raise InputError(
            f"exits.after: no layer but the classifier comes after {name}: leaving there would save nothing"
        )
    if not isinstance(output, Tensor) or output.ndim < 2 or output.shape[0] != n_examples:
        given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(
            f"exits.after: {name} gives {given} for {n_examples} examples; a head takes a tensor with one row for each"
        )
    return ExitPlace(name, tuple(output.shape), _channel_axis(network, output))


def _channel_axis(network: nn.Module, output: Tensor) -> int:
    """Of images and of signals under convolutions 1; of rows of tokens the last."""
    if output.ndim == 3 and not any(isinstance(module, nn.Conv1d) for module in network.modules()):
        return 2
    return 1


def _some_blocks(network: nn.Module, calls: Sequence[_Called]) -> str:
    """A few names that could be meant."""
    with_children = [call.name for call in calls if any(network.get_submodule(call.name).children())]
    return ", ".join((with_children or [call.name for call in calls])[:3])
