"""The weights that can be pruned and quantized, and how name patterns choose among them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from modelpress.export.errors import InputError


@dataclass(frozen=True)
class WeightLayer:
    """A weight of a network.

    Attributes:
        name: In recipes and reports: the module's name, or the parameter's where a module holds several weights.
        parameter: Full name of the parameter.
        owner: The module that holds it.
        attribute: Its name there.
        axis: Which axis counts the output channels: 0, but for transposed convolutions.
    """

    name: str
    parameter: str
    owner: nn.Module
    attribute: str
    axis: int = 0

    @property
    def weight(self) -> Tensor:
        """The parameter with its output channels first: a view, so that what is written to it stays."""
        weight: Tensor = getattr(self.owner, self.attribute)
        return weight.movedim(self.axis, 0) if self.axis else weight

    def as_stored(self, weight: Tensor) -> Tensor:
        """Undo the order of axes that `weight` has."""
        return weight.movedim(0, self.axis) if self.axis else weight


def layers_with_weights(model: nn.Module) -> dict[str, WeightLayer]:
    """Every weight that can be pruned and quantized, by name, in network order; a tied weight once.

    These are the weights of convolutions of one to three axes, plain and transposed, of linear layers and embeddings,
    the projections of attention, and the input and recurrent weights of LSTM, GRU and RNN.
    """
    found: dict[str, WeightLayer] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        for layer in _weights_of(name, module):
            if id(getattr(module, layer.attribute)) not in seen:
                seen.add(id(getattr(module, layer.attribute)))
                found[layer.name] = layer
    return found


def _weights_of(name: str, module: nn.Module) -> Iterator[WeightLayer]:
    prefix = f"{name}." if name else ""
    match module:
        case nn.MultiheadAttention():
            for attribute in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
                if getattr(module, attribute) is not None:
                    yield WeightLayer(prefix + attribute, prefix + attribute, module, attribute)
        case nn.RNNBase():
            for attribute in (n for n in module._flat_weights_names if "weight" in n):
                yield WeightLayer(prefix + attribute, prefix + attribute, module, attribute)
        case _ConvNd() | nn.Linear() | nn.Embedding() if _is_plain(module):
            axis = 1 if isinstance(module, _ConvTransposeNd) and module.groups == 1 else 0
            yield WeightLayer(name or "weight", f"{prefix}weight", module, "weight", axis)


def _is_plain(module: nn.Module) -> bool:
    """Whether the weight is a parameter of its own, and not computed from others by a parametrization."""
    return isinstance(module._parameters.get("weight"), nn.Parameter)


def parametrized_weights(model: nn.Module) -> dict[str, nn.Module]:
    """Layers whose weight is computed from other parameters, by name: they can be neither pruned nor quantized."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _ConvNd | nn.Linear | nn.Embedding) and not _is_plain(module)
    }


def weight_layers(model: nn.Module) -> dict[str, Tensor]:
    """Weights by layer name, output channels first, in network order."""
    return {name: layer.weight for name, layer in layers_with_weights(model).items()}


def n_classes_of(model: nn.Module) -> int:
    """Outputs of the last layer with weights, the classifier."""
    return len(list(weight_layers(model).values())[-1])


def matching(layers: Iterable[str], pattern: str) -> list[str]:
    """Names that fit a shell-style pattern.

    Raises:
        InputError: None does.

    Example:
        >>> matching(["head.conv", "body.0.conv"], "body.*")
        ['body.0.conv']
    """
    names = list(layers)
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise InputError(f"pattern {pattern!r} matches no layer; layers are {', '.join(names[:4])}, …")
    return found
