"""One file format between the passes: a network's weights and what has been done to them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from modelpress.export.errors import InputError, ModelError
from modelpress.toolkit.compression.exits.attaching import ExitFacts, exits_facts, exits_told, give_exits
from modelpress.toolkit.compression.foreign_network import classes_in, fill_from_elsewhere
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.quantization.quantizers import QuantizerSpec
from modelpress.toolkit.compression.state import InputContract, NetworkState
from modelpress.toolkit.networks.inputs import Inputs, image_inputs
from modelpress.toolkit.networks.layers import n_classes_of, weight_layers
from modelpress.toolkit.networks.making import make_network
from modelpress.toolkit.networks.narrowing import make_room
from modelpress.toolkit.networks.resnet_cifar import WIDTHS
from modelpress.toolkit.recipe import ModelOptions
from modelpress.toolkit.training.checkpoint import load_checkpoint, load_into, save_state

# what JSON made of a network file is data from anywhere: types are checked before anything relies on them
_MASKED: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[str, ...])
_QUANTIZERS: TypeAdapter[dict[str, QuantizerSpec]] = TypeAdapter(dict[str, QuantizerSpec])
_CONTRACT: TypeAdapter[InputContract | None] = TypeAdapter(InputContract | None)
_NARROWED: TypeAdapter[dict[str, dict[str, int]] | None] = TypeAdapter(dict[str, dict[str, int]] | None)
_MOST_CLASSES = 1_000_000  # a file that says more is damaged


def new_network(model: ModelOptions, *, seed: int, n_classes: int = 10) -> nn.Module:
    """A freshly initialised network; the same seed gives the same weights on every device.

    Raises:
        InputError: There is no such network, or the user's function fails.
    """
    return make_network(
        model.arch,
        factory=model.factory,
        arguments=model.arguments,
        shortcut=model.shortcut,
        seed=seed,
        n_classes=n_classes,
    )


def save_network(path: Path, state: NetworkState) -> None:
    """Write one safetensors file; its tensors are a plain state dict, everything else is metadata.

    Raises:
        InputError: The network is the user's own, which no recipe can make again.
    """
    if state.model is None:
        raise InputError(
            f"{path}: {state.architecture} is no network of a recipe; keep its state dict instead"
        )
    state.compressed().settle()

    contract = state.contract
    save_state(
        path,
        state.network.state_dict(),
        {
            "model": _named(state.model, n_classes_of(state.network)),
            "masked": sorted(state.masks),
            "quantizers": {name: vars(spec) for name, spec in state.quantizers.items()},
            "grids": {
                name: {key: value.tolist() for key, value in grid.items()}  # float32 survives JSON unchanged
                for name, grid in state.grids.items()
            },
            "contract": None if contract is None else contract.facts(),
            "history": state.history,
            **exits_facts(state.network),
        },
    )


def load_network(path: Path, model: ModelOptions) -> NetworkState:
    """Read a network file, or a foreign checkpoint of the architecture `model`.

    Raises:
        InputError: The file is unreadable or does not fit the architecture.
    """
    checkpoint = load_checkpoint(path, key=model.checkpoint_key)
    tensors = checkpoint.tensors
    if not checkpoint.metadata:
        n_classes = _foreign_classes(tensors, model)
        return fill_from_elsewhere(new_network(model, seed=0, n_classes=n_classes), checkpoint, path, model)

    try:
        facts = _Facts.of(checkpoint.metadata, model)
    except InputError as error:
        raise InputError(f"checkpoint {path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"checkpoint {path}: its metadata are damaged: {where}: {first['msg']}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"checkpoint {path}: its metadata are damaged: {error!r}") from error

    network = new_network(facts.model, seed=0, n_classes=_n_classes(tensors, checkpoint.metadata))
    if facts.exits is not None:
        give_exits(network, _example(facts.contract, path), facts.exits).trained = True
    if facts.narrowed is not None:
        try:
            make_room(network, {name: tuple(t.shape) for name, t in tensors.items()}, facts.narrowed)
        except InputError as error:
            raise InputError(f"checkpoint {path} does not fit the network: {error}") from error
    load_into(network, tensors, path)

    layers = weight_layers(network)
    unknown = [name for name in (*facts.masked, *facts.quantizers) if name not in layers]
    if unknown:
        raise InputError(f"checkpoint {path}: its metadata name the unknown layer {unknown[0]!r}")

    # removed weights are exact zeros in the file, so that the mask need not be stored
    masks = {name: layers[name].detach() != 0 for name in facts.masked}
    loaded = NetworkState(
        network,
        facts.model,
        masks,
        facts.quantizers,
        facts.grids,
        facts.contract,
        facts.history,
        inputs=_example(facts.contract, path),
    )

    try:
        _check_grids(loaded.compressed())
    except (RuntimeError, InputError) as error:
        raise InputError(f"checkpoint {path}: its quantization grids are damaged: {error}") from error
    return loaded


def _example(contract: InputContract | None, path: Path) -> Inputs:
    """One call of a network, as its file says.

    Raises:
        InputError: What it says is damaged.
    """
    try:
        return image_inputs() if contract is None else contract.example()
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ModelError) as error:
        raise InputError(f"checkpoint {path}: its metadata on inputs are damaged: {error!r}") from error


def _check_grids(network: CompressedNetwork) -> None:
    for name in network.kept_grids():
        grid = network.grid(name)
        offset = torch.zeros_like(grid.scale) if grid.offset is None else grid.offset
        if not (torch.isfinite(grid.scale) & (grid.scale > 0) & torch.isfinite(offset)).all():
            raise InputError(f"{name}: expected a positive scale and finite values")


@dataclass(frozen=True)
class _Facts:
    """The metadata of a network file; the architecture asked for counts where they do not name theirs."""

    model: ModelOptions
    masked: tuple[str, ...]
    quantizers: dict[str, QuantizerSpec]
    grids: dict[str, dict[str, Tensor]]
    contract: InputContract | None
    history: dict[str, Any]
    exits: ExitFacts | None
    narrowed: dict[str, dict[str, int]] | None

    @classmethod
    def of(cls, metadata: dict[str, Any], model: ModelOptions) -> "_Facts":
        """Raises KeyError, TypeError, ValueError or AttributeError where something is not as written."""
        if "model" in metadata:
            model = _model_of(metadata["model"], model)

        return cls(
            model,
            _MASKED.validate_python(metadata.get("masked", ())),
            _QUANTIZERS.validate_python(metadata.get("quantizers", {})),
            {
                name: {key: torch.tensor(value, dtype=torch.float32) for key, value in grid.items()}
                for name, grid in metadata.get("grids", {}).items()
            },
            _CONTRACT.validate_python(metadata.get("contract")),
            dict(metadata.get("history", {})),
            exits_told(metadata),
            _NARROWED.validate_python(metadata.get("history", {}).get("shrink", {}).get("counts")),
        )


def _named(model: ModelOptions, n_classes: int) -> dict[str, Any]:
    """What a network file says of its architecture."""
    facts: dict[str, Any] = {"arch": model.arch, "shortcut": model.shortcut}
    if not model.is_ours:  # the tensors of ours tell
        facts["classes"] = n_classes
    if model.factory is not None:
        facts["factory"] = model.factory
    if model.arguments:
        facts["arguments"] = model.arguments
    return facts


def _model_of(facts: dict[str, Any], asked_for: ModelOptions) -> ModelOptions:
    """The architecture that a network file names; a function is called only if the recipe names it too.

    Raises:
        InputError: The recipe does not name the function.
    """
    factory = facts.get("factory")
    if factory is not None and factory != asked_for.factory:
        raise InputError(
            f"its network is made by {factory!r}, and code is run only where you name it: "
            f"--set model.factory={factory}, or in the recipe"
        )
    return ModelOptions(
        arch=facts["arch"],
        shortcut=facts["shortcut"],
        factory=factory,
        arguments=facts.get("arguments", {}),
    )


def _foreign_classes(tensors: dict[str, Tensor], model: ModelOptions) -> int:
    """Outputs of the classifier of a checkpoint from elsewhere: the rows of its last matrix, but for our networks."""
    if model.is_ours:
        return classes_in(tensors, n_features=WIDTHS[-1])
    return next((len(t) for t in reversed(tensors.values()) if t.ndim == 2), 10)


def _n_classes(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> int:
    """Outputs of the classifier in a network file; the usual ten where it has none, so that its absence is reported."""
    told = metadata.get("model", {}).get("classes")
    if isinstance(told, int) and 0 < told < _MOST_CLASSES:
        return told
    bias = tensors.get("final_fc.linear.bias")
    return len(bias) if bias is not None and bias.ndim == 1 and len(bias) else 10
