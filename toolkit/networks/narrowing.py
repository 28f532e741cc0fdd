"""A network with fewer channels: parameters that lost entries, and modules that say so of themselves.

What a module counts follows from the shapes of its tensors, so that the same code narrows a network in training and
makes room for the tensors of a narrowed one in a file. Code of a user's own that holds numbers of channels fast gives
its module the method of `CountsChannels`.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from modelpress.export.errors import InputError

Stays = Mapping[str, Mapping[int, Tensor]]
Shapes = Mapping[str, tuple[int, ...]]


@runtime_checkable
class CountsChannels(Protocol):
    """A module whose forward pass counts channels in other ways than by the shapes of its tensors."""

    def kept_channels(self, stays: Stays) -> dict[str, int]:
        """What its counts are once channels are gone.

        Args:
            stays: By name within the module: of a tensor that loses entries, by axis, which of them stay.
        """

    def count_channels(self, counts: Mapping[str, int]) -> None:
        """Take such counts, of `kept_channels` or of a file.

        Raises:
            InputError: They do not fit.
        """


def narrow(network: nn.Module, stays: Stays) -> None:
    """Take entries out of parameters and buffers, in place; parameters stay the objects that an optimiser knows.

    Args:
        network: Is changed; gradients are dropped.
        stays: By full name of a tensor and by axis, which entries stay; a boolean of that axis' length.

    Example:
        >>> import torch
        >>> layer = nn.Linear(3, 2)
        >>> narrow(layer, {"weight": {1: torch.tensor([True, False, True])}})
        >>> layer
        Linear(in_features=2, out_features=2, bias=True)
    """
    named = _tensors(network)
    for name, counts in kept_counts(network, stays).items():
        _counting(network, name).count_channels(counts)
    for name, axes in stays.items():
        named[name].data = entries(named[name].data, axes)
        named[name].grad = None
    _say_so(network)


def entries(tensor: Tensor, axes: Mapping[int, Tensor]) -> Tensor:
    """Those that stay along each axis."""
    for axis, stay in axes.items():
        tensor = tensor.index_select(axis, stay.nonzero().flatten().to(tensor.device))
    return tensor


def kept_counts(network: nn.Module, stays: Stays) -> dict[str, dict[str, int]]:
    """What modules count for themselves once these entries alone stay, by name of the module."""
    counts = {}
    for name, module in network.named_modules():
        if isinstance(module, CountsChannels):
            prefix = f"{name}." if name else ""
            inner = {key.removeprefix(prefix): axes for key, axes in stays.items() if key.startswith(prefix)}
            counts[name] = module.kept_channels(inner)
    return counts


def make_room(network: nn.Module, shapes: Shapes, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Let tensors take smaller shapes, those of a narrowed network; their values are to be filled in.

    Args:
        network: Is changed.
        shapes: By name of a tensor; of others the shape stays.
        counts: What modules count for themselves, as `kept_counts` gives them.

    Raises:
        InputError: A shape is not smaller in each axis, or a count does not fit.
    """
    for name, tensor in _tensors(network).items():
        wanted = shapes.get(name, tuple(tensor.shape))
        smaller = len(wanted) == tensor.ndim and all(
            0 < n <= m for n, m in zip(wanted, tensor.shape, strict=True)
        )
        if tensor.ndim and not smaller:
            raise InputError(f"{name} has shape {wanted}; expected at most {tuple(tensor.shape)}")
        tensor.data = tensor.data[tuple(slice(n) for n in wanted)].clone()

    for name, own in counts.items():
        _counting(network, name).count_channels(own)
    _say_so(network)


def _counting(network: nn.Module, name: str) -> CountsChannels:
    module = dict(network.named_modules()).get(name)
    if not isinstance(module, CountsChannels):
        raise InputError(f"there is no module {name!r} that counts its channels")
    return module


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return dict((*network.named_parameters(), *network.named_buffers()))


def _say_so(network: nn.Module) -> None:
    """Set what modules say of their own sizes."""
    for module in network.modules():
        match module:
            case _ConvNd():
                _say_of_convolution(module)
            case nn.Linear():
                module.out_features, module.in_features = module.weight.shape
            case _NormBase():
                held = (module.weight, module.running_mean)
                module.num_features = next((len(t) for t in held if t is not None), module.num_features)


def _say_of_convolution(module: _ConvNd) -> None:
    """Groups stay or go as a whole: what each of them takes and makes is as before."""
    weight = module.weight
    if module.groups > 1 and not isinstance(module, _ConvTransposeNd):
        made, taken = module.out_channels // module.groups, module.in_channels // module.groups
        module.groups = len(weight) // made
        module.out_channels, module.in_channels = len(weight), taken * module.groups
    elif module.groups == 1:
        sizes = weight.shape[:2]
        transposed = isinstance(module, _ConvTransposeNd)
        module.in_channels, module.out_channels = sizes if transposed else reversed(sizes)
