"""The folder a run writes into: checked before any work starts."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from modelpress.export.errors import CommandLineError, InputError
from modelpress.export.files.atomic import check_writable, write_atomically
from modelpress.export.files.places import check_place
from modelpress.export.files.temporaries import sweep_inside

MANIFEST = "manifest.json"
_RECIPE_PATHS = (
    ("data", "dir"),
    ("data", "source"),
    ("data", "labels"),
    ("data", "test"),
    ("data", "validation"),
    ("model", "checkpoint"),
    ("model", "teacher"),
)


def prepare_output_folder(folder: Path, *, overwrite: bool, resume: bool | None) -> None:
    """Create the folder if need be and make sure that it can be written.

    Nothing is deleted here: with `overwrite`, files of an earlier run are replaced one by one as the new ones are
    ready, and other files stay. `resume` is None where there is nothing that could be resumed.

    Raises:
        InputError: It is not empty and neither option is given, it holds no run to resume, both options are given, it
            is a file, or it is not writable.
    """
    check_one_intention(overwrite=overwrite, resume=bool(resume))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep_inside(folder)  # what a killed run left is nobody's file
        occupied = any(folder.iterdir())
    except OSError as error:
        raise InputError(f"output folder {folder} cannot be created: {error.strerror}") from error
    if occupied and not (overwrite or resume):
        raise InputError(
            f"{folder}/ is not empty; pass --overwrite to replace its files, "
            + "--resume to continue the run in it, " * (resume is not None)
            + "or choose another --output-dir"
        )
    if occupied and resume and not (folder / MANIFEST).is_file():
        raise InputError(f"{folder}/ holds no run to resume (no {MANIFEST}); choose another --output-dir")
    check_writable(folder / MANIFEST)


@contextmanager
def leaving_no_folder(output: Path) -> Iterator[None]:
    """Remove what a failing call made on the way to an output: folders that were not there and are still empty."""
    missing = [folder for folder in (output, *output.parents) if not _exists(folder)]
    try:
        yield
    except BaseException:
        for folder in missing:  # the deepest first
            with suppress(OSError):  # not empty, or no folder
                folder.rmdir()
        raise


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long, or a folder that may not be entered
        return True


def state_path(output: Path) -> Path:
    """Where the training that leads to a file keeps its state while it is unfinished."""
    return output.with_name(f".{output.stem}.state.safetensors")


@contextmanager
def _looking_at(path: Path) -> Iterator[None]:
    """Whether a path exists cannot be told where its name is too long or its folder may not be entered."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be used: {error.strerror}; choose another --output") from error


def check_no_folder(path: Path) -> None:
    """Refuse the path of a folder, device, pipe or socket where a file will be written.

    Raises:
        InputError: It is one, or no file can have this name.
    """
    with _looking_at(path):
        is_folder = path.is_dir()
    if is_folder or not path.name:
        raise InputError(f"{path} is a folder; --output names a file")
    check_place(path)


def check_output_file(path: Path, *, overwrite: bool) -> None:
    """Make sure that a file can be written before the work for it starts.

    Raises:
        InputError: It exists and `overwrite` is not given, or its folder is not writable.
    """
    check_no_folder(path)
    with _looking_at(path):
        exists = path.exists()
    if exists and not overwrite:
        raise InputError(f"{path} exists; pass --overwrite to replace it, or choose another --output")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output folder {path.parent} cannot be created: {error.strerror}") from error
    check_writable(path)


def check_network_output(path: Path, *, overwrite: bool, resume: bool) -> None:
    """`check_output_file` for the file of a training stage, which may be resumed.

    Raises:
        InputError: As there; another suffix; an unfinished training, and neither option given.
    """
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: a network file ends in .safetensors")
    check_one_intention(overwrite=overwrite, resume=resume)
    with _looking_at(path):
        unfinished = state_path(path).is_file()
    check_output_file(path, overwrite=overwrite or (resume and unfinished))
    if unfinished and not (overwrite or resume):
        raise InputError(
            f"an unfinished training for {path} is there; --resume goes on, --overwrite starts again"
        )


def check_one_intention(*, overwrite: bool, resume: bool) -> None:
    """Refuse two intentions at once.

    Raises:
        CommandLineError: Both are given.
    """
    if overwrite and resume:
        raise CommandLineError("--overwrite starts again and --resume goes on: give one of them")


def without_local_paths(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A recipe as it is recorded: what is handed over says nothing of the folders of the machine it was made on.

    Args:
        recipe: As JSON holds it.
        folder: That of the record; a path inside it is given relative to it, any other absolute one by its last part.

    Example:
        >>> without_local_paths({"data": {"dir": "/home/me/cifar10"}}, Path("runs/a"))
        {'data': {'dir': 'cifar10'}}
    """
    recorded = {key: dict(value) if isinstance(value, dict) else value for key, value in recipe.items()}
    for section, key in _RECIPE_PATHS:
        held = recorded.get(section)
        if isinstance(held, dict) and isinstance(held.get(key), str):
            held[key] = recorded_path(Path(held[key]), folder)
    return recorded


def recorded_path(path: Path, folder: Path) -> str:
    """A path for a file that is handed over; see `without_local_paths`."""
    if not path.is_absolute():
        return str(path)
    whole = folder.absolute()
    return path.relative_to(whole).as_posix() if path.is_relative_to(whole) else path.name


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write `manifest.json`, whole or not at all."""
    write_json(folder / MANIFEST, manifest)


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record, whole or not at all."""
    write_atomically(path, (json.dumps(record, indent=2) + "\n").encode())


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
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}; pass --overwrite to start again") from error
    if not isinstance(manifest, dict):
        raise InputError(f"{path} is damaged: no manifest; pass --overwrite to start again")
    return manifest


def file_facts(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    data = path.read_bytes()
    return {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
