"""The folder of a run: its manifest, what is in it, and whether it is complete."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from modelpress import __version__
from modelpress.benchmarks.environment import describe_environment
from modelpress.export.errors import InputError
from modelpress.export.files.places import check_not_read
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import NETWORK_FILES, Work
from modelpress.toolkit.data.data_set import DataSet
from modelpress.toolkit.output_folder import (
    MANIFEST,
    check_no_folder,
    file_facts,
    prepare_output_folder,
    read_manifest,
    state_path,
    without_local_paths,
    write_manifest,
)
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.recipe import Recipe
from modelpress.toolkit.training.device import Device
from modelpress.toolkit.training.evaluate import validation_figure

PRESS, DENSE = "model.press", "dense-float.onnx"
RESULTS, REPORT = "results.json", "report.html"


def onnx_name(flavour: str) -> str:
    """File name of the compressed model in that flavour.

    Example:
        >>> onnx_name("int8")
        'model-int8.onnx'
    """
    return f"model-{flavour}.onnx"


def model_files(recipe: Recipe) -> list[str]:
    """The files that hold the compressed model."""
    return [PRESS, *map(onnx_name, recipe.onnx)]


def exit_files(recipe: Recipe) -> list[str]:
    """The files that leave early, one for each flavour; there are none where no exit pays."""
    return [onnx_name(f"{flavour}-exits") for flavour in recipe.onnx] if recipe.exits is not None else []


def files_read(recipe: Recipe) -> list[Path]:
    """The networks that a recipe starts from or learns from."""
    return [Path(path) for path in (recipe.model.checkpoint, recipe.model.teacher) if path is not None]


def is_complete(recipe: Recipe, path: Path) -> bool:
    """Whether a folder holds this very run, finished.

    Raises:
        InputError: It holds a run of another recipe, or a file of it is missing or changed.
    """
    earlier = read_manifest(path)
    if earlier is None:
        return False
    if not _same_recipe(earlier.get("recipe"), recipe, path):
        raise InputError(
            f"{path}/ holds a run of another recipe; give the same options to resume it, "
            "or pass --overwrite to start again"
        )
    if earlier.get("status") != "complete":
        return False

    for name, facts in earlier.get("files", {}).items():
        if not (path / name).is_file() or file_facts(path / name) != facts:
            raise InputError(
                f"{path}/ holds a complete run, but {name} is missing or changed; "
                "pass --overwrite to run again"
            )
    return True


def recorded_recipe(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """A recipe as the records in a folder hold it: without the folders of this machine."""
    return without_local_paths(recipe.model_dump(mode="json"), folder)


def _same_recipe(earlier: Any, recipe: Recipe, folder: Path) -> bool:
    """Whether a manifest's recipe means this one; keys that it does not know have their defaults."""
    try:
        return recorded_recipe(Recipe.model_validate(earlier), folder) == recorded_recipe(recipe, folder)
    except ValidationError:
        return False


class RunFolder:
    """The folder of one run, with the manifest that grows as it goes on.

    Args:
        recipe: Of the run.
        path: The folder.
        progress: Told of every stage.
    """

    def __init__(self, recipe: Recipe, path: Path, progress: Progress) -> None:
        self.recipe, self.path, self.progress = recipe, path, progress
        self.manifest: dict[str, Any] = {
            "schema_version": 1,
            "modelpress": __version__,
            "status": "running",
            "recipe": recorded_recipe(recipe, path),
            "environment": describe_environment(),
            "stages": [],
            "validation_top1": {},
        }

    def prepare(self, *, overwrite: bool, resume: bool) -> None:
        """Make sure that all files of the run can be written, before any work starts.

        Raises:
            InputError: They cannot.
        """
        prepare_output_folder(self.path, overwrite=overwrite, resume=resume)
        models = (*model_files(self.recipe), *exit_files(self.recipe), DENSE)
        names = (*NETWORK_FILES.values(), *models, RESULTS, REPORT, MANIFEST)
        for name in names:
            check_no_folder(self.path / name)
            check_not_read(self.path / name, files_read(self.recipe))

    def begin(self, device: Device, *, resume: bool) -> None:
        """Leave a manifest that names the run, once its inputs are known to be good."""
        if not resume:
            self._drop_states()
        self.manifest["environment"]["training_device"] = device.describe()
        write_manifest(self.path, self.manifest)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce and time a stage."""
        self.progress.stage(name)
        with self.timed(name):
            yield

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time a stage that announces its parts itself."""
        began = time.perf_counter()
        yield
        self.manifest["stages"].append({"name": name, "seconds": round(time.perf_counter() - began, 3)})

    def report_validation(self, name: str, state: NetworkState, work: Work) -> None:
        """Measure and tell the accuracy on the held-out split."""
        data = work.data
        figure = validation_figure(state.compressed(), data, work.device)
        if figure is None:
            return
        shown = data.metric.shown(figure)
        if data.classifies:
            self.manifest["validation_top1"][name] = figure
            self.progress.note(f"{name}: validation {shown} of {len(data.validation):,} {data.noun}")
        else:
            self.manifest.setdefault("validation", {})[name] = figure
            self.progress.note(
                f"{name}: validation {data.metric.name} {shown} on {len(data.validation):,} {data.noun}"
            )

    def finish(self, state: NetworkState, images: DataSet) -> None:
        """Complete the manifest and drop the training states."""
        checkpoint = self.recipe.model.checkpoint
        self.manifest.update(
            status="complete",
            dataset=images.test_facts(),
            source_checkpoint=None if checkpoint is None else file_facts(Path(checkpoint)),
            history=state.history,
            files={name: file_facts(self.path / name) for name in self._written()},
        )
        write_manifest(self.path, self.manifest)
        self._drop_states()  # only now: a run killed before is resumed from them

    def _drop_states(self) -> None:
        for name in NETWORK_FILES.values():
            state_path(self.path / name).unlink(missing_ok=True)

    def _written(self) -> list[str]:
        networks = [NETWORK_FILES["finetune"]]
        if self.recipe.model.checkpoint is None:
            networks.append(NETWORK_FILES["train"])
        if self.recipe.prune.by_penalty:
            networks.append(NETWORK_FILES["sparsify"])
        if (self.path / NETWORK_FILES["exits"]).is_file() and self.recipe.exits is not None:
            networks.append(NETWORK_FILES["exits"])
        leaving = [name for name in exit_files(self.recipe) if (self.path / name).is_file()]
        return sorted([*networks, *model_files(self.recipe), *leaving, DENSE, RESULTS, REPORT])
