"""Checkpoint files: safetensors of our own, state dicts of others, never arbitrary pickles."""

import json
import warnings
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from modelpress.export.errors import InputError
from modelpress.export.files.atomic import write_atomically
from modelpress.export.files.kinds import Wanted, check_kind, meant_in

_KEY = "modelpress"  # the one metadata entry, JSON
_SHOWN = 3  # names listed of each kind of mismatch

State = dict[str, Tensor]


def save_state(path: Path, tensors: State, metadata: dict[str, Any]) -> None:
    """Write tensors and JSON metadata as one safetensors file, whole or not at all."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = safetensors.torch.save(contiguous, {_KEY: json.dumps(metadata, sort_keys=True)})
    write_atomically(path, data)


def load_state(path: Path) -> tuple[State, dict[str, Any]]:
    """Read a checkpoint: ``.safetensors``, or a PyTorch state dict (``weights_only=True``, no fallback).

    Returns:
        Tensors on the CPU, and the metadata that `save_state` wrote (empty for foreign files).

    Raises:
        InputError: The file is missing, damaged, or holds anything but tensors by name.
    """
    path = Path(path)
    if not path.is_file():
        what = (
            f"is no file; {meant_in(path, Wanted.NETWORK)}".strip("; ") if path.exists() else "does not exist"
        )
        raise InputError(f"checkpoint {path} {what}")
    check_kind(path, Wanted.NETWORK)
    return _load_safetensors(path) if path.suffix == ".safetensors" else (_load_pickle(path), {})


def load_into(network: nn.Module, state: State, path: Path) -> None:
    """Fill a network; every key and shape must fit.

    Raises:
        InputError: Keys are missing or unknown, or shapes differ; each is named.
    """
    own = network.state_dict()

    problems = [
        *_listed("missing", [key for key in own if key not in state]),
        *_listed("unknown", [key for key in state if key not in own]),
        *_listed(
            "of another shape",
            [
                f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
                for key, value in own.items()
                if key in state and state[key].shape != value.shape
            ],
        ),
        *_listed(
            "of another type",
            [
                f"{key} {_kind(state[key])} instead of {_kind(value)}"
                for key, value in own.items()
                if key in state and _kind(state[key]) != _kind(value)
            ],
        ),
    ]
    if not problems:  # values only where shapes fit
        problems = _listed("not finite", [key for key in own if not torch.isfinite(state[key]).all()])
    if problems:
        raise InputError(f"checkpoint {path} does not fit the network: {'; '.join(problems)}")

    network.load_state_dict(state)


def _kind(tensor: Tensor) -> str:
    layout = "" if tensor.layout == torch.strided else "sparse "
    return layout + str(tensor.dtype).removeprefix("torch.")


def _listed(kind: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{more})"]


def _load_safetensors(path: Path) -> tuple[State, dict[str, Any]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
            metadata = json.loads((file.metadata() or {}).get(_KEY, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"checkpoint {path} is no readable safetensors file: {error}") from error
    if not isinstance(metadata, dict):
        raise InputError(f"checkpoint {path}: its metadata are damaged: no JSON object")
    return state, metadata


def _load_pickle(path: Path) -> State:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about archives of other kinds, which are refused anyway
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises its unpickler's, zip's and I/O errors unchanged
        raise InputError(
            f"checkpoint {path} is no state dict that loads safely (weights_only=True): save one with "
            "torch.save(model.state_dict(), path), or as .safetensors"
        ) from error

    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]  # what training frameworks wrap it in
    if not isinstance(content, dict) or not content or not all(map(_is_entry, content.items())):
        raise InputError(
            f"checkpoint {path} is no state dict: expected tensors by name, got {_describe(content)}"
        )
    return dict(content)


def _is_entry(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _describe(content: object) -> str:
    if isinstance(content, dict):
        kinds = {type(value).__name__ for value in content.values()}
        return f"a dict of {', '.join(sorted(kinds)) or 'nothing'}"
    return f"a {type(content).__name__}"
