"""The folder a run writes into: checked before any work starts."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from export.atomic_file import write_atomically
from export.errors import InputError

MANIFEST = "manifest.json"
STATE = "state"  # training states of an unfinished run


def prepare_output_folder(folder: Path, *, overwrite: bool, resume: bool) -> None:
    """Create the folder if need be and make sure that it can be written.

    With `overwrite`, files of an earlier run are replaced one by one as the new ones are ready; its unfinished
    training state is dropped at once. Other files stay.

    Raises:
        InputError: It is not empty and neither option is given, it is a file, or it is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
    except OSError as error:
        raise InputError(f"output folder {folder} cannot be created: {error.strerror}") from error
    if occupied and not (overwrite or resume):
        raise InputError(
            f"{folder}/ is not empty; pass --overwrite to replace its files, --resume to continue the run in it, "
            "or choose another --output-dir"
        )
    probe = folder / ".write-test"
    write_atomically(probe, b"")
    probe.unlink()
    if overwrite and not resume:
        shutil.rmtree(folder / STATE, ignore_errors=True)
        (folder / MANIFEST).unlink(missing_ok=True)


def check_output_file(path: Path, *, overwrite: bool) -> None:
    """Make sure that a file can be written before the work for it starts.

    Raises:
        InputError: It exists and `overwrite` is not given, or its folder is not writable.
    """
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; pass --overwrite to replace it, or choose another --output")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output folder {path.parent} cannot be created: {error.strerror}") from error
    probe = path.parent / f".{path.name}.write-test"
    write_atomically(probe, b"")
    probe.unlink()


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write `manifest.json`, whole or not at all."""
    write_atomically(folder / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of an earlier run, if there is one.

    Raises:
        InputError: It is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}; pass --overwrite to start again") from error
    if not isinstance(manifest, dict):
        raise InputError(f"{path} is damaged: no manifest; pass --overwrite to start again")
    return manifest


def file_facts(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    data = path.read_bytes()
    return {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
