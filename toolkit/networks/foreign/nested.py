"""Where in a checkpoint file the weights are: training scripts put them beside their optimiser's state."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from modelpress.export.errors import InputError

State = dict[str, Tensor]

# The first that is there counts: weights as trained come before their moving averages.
USUAL_KEYS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "weights",
    "params",
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
)
_DEPTH = 4  # of dicts in dicts
_SHOWN = 6  # names listed in a message


@dataclass(frozen=True)
class Found:
    """Weights of a checkpoint file.

    Attributes:
        tensors: By name, as the file has them.
        notes: What else the file holds and was not read, a sentence each.
    """

    tensors: State
    notes: tuple[str, ...] = ()


def weights_in(content: object, *, key: str | None = None) -> Found:
    """Tensors by name inside what `torch.load` returned.

    Args:
        content: A state dict, or dicts around one.
        key: Where it is, as ``ema`` or ``state.ema``, or what the names begin with; None: at the usual places.

    Raises:
        InputError: There are no tensors by name, or the key is not there.

    Example:
        >>> import torch
        >>> weights_in({"epoch": 3, "state_dict": {"fc.bias": torch.zeros(2)}})
        Found(tensors={'fc.bias': tensor([0., 0.])}, notes=("not read beside 'state_dict': epoch",))
    """
    notes: list[str] = []
    if key is not None:
        content = _at(content, key)

    for _ in range(_DEPTH):
        inner = None if not isinstance(content, dict) else _usual_key(content)
        if inner is None or not isinstance(content, dict):
            break
        notes += _beside(content, inner)
        content = content[inner]

    tensors = _tensors(content)
    if not tensors:
        raise InputError(f"is no state dict: expected tensors by name, got {_describe(content)}")

    assert isinstance(content, dict)  # that of the tensors
    others = [str(name) for name in content if name not in tensors]
    if others:
        notes.append(f"entries that are no tensors are not read: {_listed(others)}")
    return Found(tensors, tuple(notes))


def _at(content: object, key: str) -> object:
    """The dict under a key, or the tensors whose names begin with it."""
    named = {
        name.removeprefix(f"{key}."): value
        for name, value in _tensors(content).items()
        if name.startswith(f"{key}.")
    }
    if named:
        return named

    for part in key.split("."):
        if not isinstance(content, dict) or part not in content:
            there = _listed(map(str, content)) if isinstance(content, dict) else _describe(content)
            raise InputError(f"has nothing under model.checkpoint_key {key!r}; it holds {there}")
        content = content[part]
    return content


def _usual_key(content: dict[object, object]) -> str | None:
    return next((key for key in USUAL_KEYS if _holds_weights(content.get(key), _DEPTH)), None)


def _holds_weights(content: object, depth: int) -> bool:
    """Whether there are tensors at its usual places: ``model`` may as well be a dict of settings."""
    if not isinstance(content, dict) or not depth:
        return False
    return bool(_tensors(content)) or any(_holds_weights(content.get(key), depth - 1) for key in USUAL_KEYS)


def _beside(content: dict[object, object], taken: str) -> Iterator[str]:
    """What a user may have meant instead, and what else is left."""
    weights = [key for key in USUAL_KEYS if key != taken and _holds_weights(content.get(key), _DEPTH)]
    if weights:
        yield (
            f"weights are read from {taken!r}; the file holds others under {_listed(weights)}: choose them with "
            f"model.checkpoint_key={weights[0]}"
        )
    rest = [str(key) for key in content if key != taken and key not in weights]
    if rest:
        yield f"not read beside {taken!r}: {_listed(rest)}"


def _tensors(content: object) -> State:
    if not isinstance(content, dict):
        return {}
    return {
        key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)
    }


def _listed(names: Iterator[str] | list[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _describe(content: object) -> str:
    if isinstance(content, dict):
        kinds = {type(value).__name__ for value in content.values()}
        return f"a dict of {', '.join(sorted(kinds)) or 'nothing'}"
    return f"a {type(content).__name__}"
