"""A network out of a checkpoint that another program wrote."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from modelpress.export.errors import InputError
from modelpress.toolkit.compression.state import InputContract, NetworkState
from modelpress.toolkit.networks.foreign.adapting import Adapted, adapt
from modelpress.toolkit.networks.foreign.name_map import NoCounterpart
from modelpress.toolkit.networks.foreign.zeros import describe_zeros, masks_of_zeros
from modelpress.toolkit.networks.layers import weight_layers
from modelpress.toolkit.recipe import ModelOptions
from modelpress.toolkit.training.checkpoint import Checkpoint, load_into


def fill_from_elsewhere(
    network: nn.Module, checkpoint: Checkpoint, path: Path, model: ModelOptions
) -> NetworkState:
    """A network with the weights of a foreign checkpoint, and what had to be done to them.

    Args:
        network: Of the architecture `model`; is changed.
        checkpoint: Its tensors may have other names and number types.
        path: Of the checkpoint, for messages.
        model: What the recipe says of names, zeros and normalisation.

    Raises:
        InputError: The tensors do not fit. Where others' names would fit by shape and order, the table of that mapping
            is in the notes of the exception.
    """
    try:
        adapted = adapt(
            checkpoint.tensors,
            network.state_dict(),
            map_by_shape=model.map_names,
            ordered=checkpoint.ordered,
        )
    except NoCounterpart as error:
        raise InputError(
            f"checkpoint {path} {error}; expected {model.arch}; of any other network, export an ONNX model and "
            "`modelpress pack model.onnx`"
        ) from error
    except InputError as error:
        raise _located(error, path) from error

    load_into(network, adapted.tensors, path)

    layers = weight_layers(network)
    masks = masks_of_zeros(layers) if model.keep_zeros else {}
    notes = [*checkpoint.notes, *adapted.notes, *([describe_zeros(masks)] if masks else [])]
    facts = _history(notes, adapted, masks)
    return NetworkState(
        network,
        model,
        masks,
        contract=None if model.normalisation is None else InputContract.of_normalisation(model.normalisation),
        history={"checkpoint": facts} if facts else {},
        notes=tuple(f"{path.name}: {note}" for note in notes) + _table(adapted),
    )


def classes_in(tensors: dict[str, Tensor], *, n_features: int) -> int:
    """Outputs of the classifier in a checkpoint: rows of its last matrix; ten where there is none that would fit."""
    matrices = [t for t in tensors.values() if t.ndim == 2 and t.shape[1] == n_features and len(t)]
    return len(matrices[-1]) if matrices else 10


def _history(notes: list[str], adapted: Adapted, masks: dict[str, Tensor]) -> dict[str, Any]:
    """What the manifest tells of the checkpoint; nothing where it was taken as it is."""
    facts: dict[str, Any] = {"notes": notes} if notes else {}
    if adapted.name_map is not None:
        facts["renamed"] = adapted.name_map.modules()
    if masks:
        facts["zeros_kept"] = {name: int((~mask).sum()) for name, mask in masks.items()}
    return facts


def _table(adapted: Adapted) -> tuple[str, ...]:
    return () if adapted.name_map is None else (adapted.name_map.table(),)


def _located(error: InputError, path: Path) -> InputError:
    """The same error, which names the file."""
    located = InputError(f"checkpoint {path} {error}")
    for note in getattr(error, "__notes__", ()):
        located.add_note(note)
    return located
