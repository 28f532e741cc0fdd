"""What a worker does: one recipe in a folder of its own, which belongs to nobody else.

Files come and go as bytes, so that nothing relies on a folder that machines share. Knows neither Optuna nor Ray.
"""

import hashlib
import io
import os
import platform
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from modelpress.export.errors import InputError, ModelpressError
from modelpress.toolkit.output_folder import MANIFEST, read_manifest
from modelpress.toolkit.progress import Silent
from modelpress.toolkit.recipe import Recipe
from modelpress.toolkit.sweeps.objectives import IN_FIRMWARE, MeasureName, measured
from modelpress.toolkit.training.loop import EpochRecord

Files = dict[str, bytes]
_CARRIED = (("data", "dir"), ("data", "source"), ("model", "checkpoint"), ("model", "teacher"))


@dataclass(frozen=True)
class Job:
    """One trial, as it travels.

    Attributes:
        number: Of the trial.
        recipe: As JSON.
        measures: What is wanted of it.
        threads: Of the training.
        files: Of an earlier attempt.
    """

    number: int
    recipe: dict[str, Any]
    measures: tuple[MeasureName, ...]
    threads: int
    files: Files = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a trial came to.

    Attributes:
        state: How it ended.
        values: Of the measures.
        error: Why it failed.
        files: Of its folder.
    """

    state: Literal["complete", "pruned", "failed"]
    values: tuple[float, ...] = ()
    error: str = ""
    files: Files = field(default_factory=dict)


@dataclass(frozen=True)
class Epoch:
    """News of a trial.

    Attributes:
        number: Of the trial.
        step: Epochs of all its trainings so far.
        figure: On the held-out examples.
        files: That the trial goes on from if its worker is killed.
    """

    number: int
    step: int
    figure: float | None
    files: Files


Tell = Callable[[Epoch], bool]
"""Takes the news; returns whether the trial is to end."""


class _Pruned(Exception):  # noqa: N818 - not an error
    """The driver ends the trial."""


def worker_name() -> str:
    """Machine and process.

    Example:
        >>> worker_name().endswith(f":{os.getpid()}")
        True
    """
    return f"{platform.node()}:{os.getpid()}"


def carry_out(job: Job, tell: Tell, carried: Mapping[str, bytes]) -> Outcome:
    """Run the recipe of a job; what it raises fails the trial and nothing else.

    Args:
        job: The trial.
        tell: Told of every epoch.
        carried: Files and folders that recipes name, packed by `packed`, by the path that they have there.
    """
    import torch

    torch.set_num_threads(job.threads)
    with tempfile.TemporaryDirectory(prefix="modelpress-trial-") as name:
        folder = Path(name)
        _write(folder, job.files)
        try:
            values = _run(job, folder, tell, carried)
        except _Pruned:
            return Outcome("pruned", files=_read(folder))
        except ModelpressError as error:
            return Outcome("failed", error=" ".join(str(error).split()), files=_read(folder))
        except Exception as error:  # of a library, or of code of the user's own
            told = " ".join(str(error).split())[:500]
            return Outcome("failed", error=f"{type(error).__name__}: {told}", files=_read(folder))
        return Outcome("complete", values, files=_read(folder))


def _run(job: Job, folder: Path, tell: Tell, carried: Mapping[str, bytes]) -> tuple[float, ...]:
    from modelpress.toolkit.compression.judging.held_out import FIRMWARE, HeldOut
    from modelpress.toolkit.compression.run import run_recipe

    recipe = _here(job.recipe, carried)
    told = _Told(job, folder, tell)
    results = run_recipe(
        recipe,
        folder,
        resume=(folder / MANIFEST).is_file(),
        progress=Silent(),
        held_out=HeldOut(
            after_epoch=told.after_epoch,
            timed="latency" in job.measures,
            firmware=any(measure in IN_FIRMWARE for measure in job.measures),
        ),
    )
    assert results is not None  # one process alone
    manifest = read_manifest(folder) or {}
    return tuple(measured(job.measures, results, manifest.get(FIRMWARE, {})))


class _Told:
    """Passes epochs on, with the files that changed."""

    def __init__(self, job: Job, folder: Path, tell: Tell) -> None:
        self._job, self._folder, self._tell = job, folder, tell
        self._sent: dict[str, int] = {}
        self._step = sum(map(_epochs_in, self._states()))

    def after_epoch(self, epoch: EpochRecord) -> None:
        figure = epoch.validation_top1 if epoch.validation is None else epoch.validation
        self._step += 1
        if self._tell(Epoch(self._job.number, self._step, figure, self._changed())):
            raise _Pruned

    def _states(self) -> Sequence[Path]:
        return sorted(self._folder.glob(".*.state.safetensors"))

    def _changed(self) -> Files:
        """The manifest and the states of trainings, where the driver does not have them as they are."""
        found = {}
        for path in (self._folder / MANIFEST, *self._states()):
            changed = path.stat().st_mtime_ns
            if self._sent.get(path.name) != changed:
                found[path.name] = path.read_bytes()
                self._sent[path.name] = changed
        return found


def _epochs_in(state: Path) -> int:
    """Whole epochs behind the state of a training."""
    from modelpress.toolkit.training.checkpoint import load_state

    return int(load_state(state)[1]["position"]["epoch"])


def _read(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def _write(folder: Path, files: Files) -> None:
    for name, data in files.items():
        (folder / name).write_bytes(data)


# What recipes name


def places_named(recipes: Sequence[Recipe]) -> list[Path]:
    """Files and folders of this machine that recipes name."""
    found = {
        Path(value)
        for recipe in recipes
        for section, key in _CARRIED
        if isinstance(value := getattr(getattr(recipe, section), key), str) and Path(value).exists()
    }
    return sorted(found)


def check_weights(recipe: Recipe) -> None:
    """Files of weights that a recipe names must be there.

    Raises:
        InputError: One is not.
    """
    for key in ("checkpoint", "teacher"):
        named = getattr(recipe.model, key)
        if named is not None and not Path(named).is_file():
            raise InputError(f"model.{key}: there is no file {named}; every trial would end there")


def packed(path: Path) -> bytes:
    """A file or folder as an archive in memory."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        archive.add(path, arcname=path.absolute().name)
    return held.getvalue()


def unpacked(archive: bytes, *, below: Path) -> Path:
    """The file or folder of an archive, once on a machine: later calls find it.

    Args:
        archive: As `packed` makes it.
        below: Where such things are kept.
    """
    place = below / hashlib.sha256(archive).hexdigest()[:32]
    if not place.is_dir():
        below.mkdir(mode=0o700, parents=True, exist_ok=True)
        if hasattr(os, "getuid") and below.stat().st_uid != os.getuid():
            raise InputError(f"{below}/ belongs to somebody else: data that trials read are not kept there")
        fresh = Path(tempfile.mkdtemp(dir=below))
        with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            opened.extractall(fresh, filter="data")
        try:
            fresh.rename(place)
        except OSError:  # another worker was faster
            shutil.rmtree(fresh)
    return next(place.iterdir())


def _here(recipe: Mapping[str, Any], carried: Mapping[str, bytes]) -> Recipe:
    """The recipe with the places that its files have on this machine."""
    document = {key: dict(value) if isinstance(value, dict) else value for key, value in recipe.items()}
    user = os.getuid() if hasattr(os, "getuid") else "user"
    below = Path(tempfile.gettempdir()) / f"modelpress-data-{user}"
    for section, key in _CARRIED:
        named = document[section][key]
        if named in carried:
            document[section][key] = str(unpacked(carried[named], below=below))
    return Recipe.model_validate(document)


def with_whole_paths(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON in which the places of this machine are named from its root."""
    document: dict[str, Any] = recipe.model_dump(mode="json")
    for section, key in _CARRIED:
        named = document[section][key]
        if named is not None and Path(named).exists():
            document[section][key] = str(Path(named).absolute())
    return document
