"""Checkpoint files: safetensors of our own, state dicts of others, never arbitrary pickles."""

import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from modelpress.export.errors import InputError
from modelpress.export.files.atomic import write_atomically
from modelpress.export.files.kinds import Kind, Wanted, check_kind, kind_of, meant_in
from modelpress.toolkit.networks.foreign.nested import State, weights_in

_KEY = "modelpress"  # the one metadata entry, JSON
_SHOWN = 3  # names listed of each kind of mismatch


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        tensors: By name, on the CPU.
        metadata: What `save_state` wrote; empty for foreign files.
        notes: What else is in the file and was not read, a sentence each.
        ordered: Whether the tensors are in the order in which the layers were defined.
    """

    tensors: State
    metadata: dict[str, Any]
    notes: tuple[str, ...]
    ordered: bool


def save_state(path: Path, tensors: State, metadata: dict[str, Any]) -> None:
    """Write tensors and JSON metadata as one safetensors file, whole or not at all."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    # the format knows no shared memory: tied weights are written under each of their names
    seen: set[int] = set()
    for name, tensor in contiguous.items():
        if tensor.untyped_storage().data_ptr() in seen:
            contiguous[name] = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
    data = safetensors.torch.save(contiguous, {_KEY: json.dumps(metadata, sort_keys=True)})
    write_atomically(path, data)


def load_state(path: Path) -> tuple[State, dict[str, Any]]:
    """Tensors and metadata of a checkpoint; see `load_checkpoint`."""
    checkpoint = load_checkpoint(path)
    return checkpoint.tensors, checkpoint.metadata


def load_checkpoint(path: Path, *, key: str | None = None) -> Checkpoint:
    """Read ``.safetensors``, or a file of `torch.save` in any format (``weights_only=True``, no fallback).

    Args:
        path: The file.
        key: Where in a foreign file the weights are, see `weights_in`; None: at the usual places.

    Raises:
        InputError: The file is missing, damaged, or holds no tensors by name.
    """
    path = Path(path)
    if not path.is_file():
        what = (
            f"is no file; {meant_in(path, Wanted.NETWORK)}".strip("; ") if path.exists() else "does not exist"
        )
        raise InputError(f"checkpoint {path} {what}")
    check_kind(path, Wanted.NETWORK)

    is_safetensors = path.suffix == ".safetensors" or kind_of(path) is Kind.SAFETENSORS
    try:
        if is_safetensors:
            tensors, metadata = _load_safetensors(path)
            if metadata:  # our own file holds one network, under its own names
                return Checkpoint(tensors, metadata, notes=(), ordered=False)
        found = weights_in(tensors if is_safetensors else _load_pickle(path), key=key)
    except InputError as error:
        raise InputError(f"checkpoint {path} {error}") from error
    return Checkpoint(found.tensors, {}, found.notes, ordered=not is_safetensors)  # safetensors sorts by name


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
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"is no readable safetensors file: {error}") from error
    if not isinstance(metadata, dict):
        raise InputError("has damaged metadata: no JSON object")
    return state, metadata


def _load_pickle(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about archives of other kinds, which are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises its unpickler's, zip's and I/O errors unchanged
        blamed = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it holds a {blamed[1]}; " if blamed else ""
        raise InputError(
            f"is no state dict that loads safely (weights_only=True): {what}save one with "
            "torch.save(model.state_dict(), path), or as .safetensors"
        ) from error
