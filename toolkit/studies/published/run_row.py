"""One row of a study: train if it says so, pack, and measure the packed file in ONNX Runtime."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from modelpress.benchmarks.measures.accuracy import top1, wilson_interval
from modelpress.benchmarks.subjects.model_file import open_model
from modelpress.export.errors import InputError
from modelpress.export.press.writing import write_artifact
from modelpress.export.runtime import open_session, run_batched
from modelpress.toolkit.compression.freeze import freeze_state
from modelpress.toolkit.compression.pruning.removal import prunable_layers
from modelpress.toolkit.compression.run import compress
from modelpress.toolkit.compression.starting import starting_network
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import NETWORK_FILES, Point, Work, network_files
from modelpress.toolkit.data.data_set import DataSet, normalised
from modelpress.toolkit.output_folder import file_facts, state_path, without_local_paths, write_json
from modelpress.toolkit.recipe import Recipe
from modelpress.toolkit.studies.published.rows import Row

PRESS, RECORD = "model.press", "row.json"
CHECKPOINT = NETWORK_FILES["finetune"]


@dataclass(frozen=True)
class RowRecord:
    """What a row measured.

    Attributes:
        published: Top-1 in percent, or None.
        top1: Fraction of the test images, in ONNX Runtime, of the packed file after the last epoch.
        top1_interval: 95 % (Wilson).
        sparsity: Share of zeros in the prunable layers, before and after the finetuning.
        layers: Share of zeros of each prunable layer at the end.
        size_bytes: Of the packed file.
        seconds: Of training alone.
        images_per_second: Mean over the training; None without one.
        source: SHA-256 of the checkpoint that the row started from.
        dataset: SHA-256 of the test images and labels.
    """

    name: str
    study: str
    kind: str
    method: str
    published: float | None
    top1: float
    top1_interval: tuple[float, float]
    n_images: int
    sparsity_before: float
    sparsity: float
    layers: dict[str, float]
    size_bytes: int
    epochs: int
    seconds: float
    images_per_second: float | None
    training: list[dict[str, Any]]
    recipe: dict[str, Any]
    source: str
    dataset: str
    environment: dict[str, Any]

    @property
    def difference(self) -> float | None:
        """Ours minus the published figure, in points."""
        return None if self.published is None else 100 * self.top1 - self.published


_RECORDS = TypeAdapter(RowRecord)


def finished_row(folder: Path, recipe: Recipe, *, source: str, dataset: str) -> RowRecord | None:
    """The record of an earlier run of the very same row; None if there is none, or of another recipe or start.

    Raises:
        InputError: The record is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None

    try:
        record = _RECORDS.validate_json(path.read_bytes())
        same = _meaning(Recipe.model_validate(record.recipe)) == _meaning(recipe)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise InputError(
            f"{path} is damaged: {where}: {first['msg']}; delete it to run the row again"
        ) from error

    return record if same and (record.source, record.dataset) == (source, dataset) else None


def _meaning(recipe: Recipe) -> dict[str, Any]:
    """What changes the result: not where files are (they are compared themselves), nor on what device."""
    meant = recipe.model_dump(exclude={"data": {"dir", "download"}, "model": {"checkpoint"}, "run": True})
    return without_local_paths(meant, Path())


def forget_row(folder: Path) -> None:
    """Remove what `run_row` wrote, unfinished trainings included, and nothing else."""
    for path in (folder / RECORD, folder / PRESS, folder / CHECKPOINT, state_path(folder / CHECKPOINT)):
        if path.is_file():
            path.unlink()


def run_row(row: Row, work: Work, *, start: Path, folder: Path, environment: dict[str, Any]) -> RowRecord:
    """Carry out a row; its network, its packed file and its record are in `folder`.

    An unfinished training in the folder goes on where it stopped.

    Args:
        row: What it is.
        work: What it does; images have their validation split held out.
        start: Checkpoint it starts from.
        folder: Of this row alone.
        environment: Goes into the record.

    Raises:
        Interrupted: Stopped on request.
        InputError: The checkpoint does not fit.
    """
    recipe, images = work.recipe, work.data
    _make(folder)

    zeros: dict[str, float] = {}

    def watch(point: Point, state: NetworkState) -> None:
        zeros[point] = _sparsity(state, recipe)
        if point == "finetuned":  # the next file written is another checkpoint than the record's
            (folder / RECORD).unlink(missing_ok=True)

    watched = replace(work, outputs=network_files(folder), resume=True, watch=watch)
    trained = compress(_started(start, work), watched)
    size = write_artifact(folder / PRESS, freeze_state(trained), effort=recipe.pack.effort)
    accuracy = _accuracy(folder / PRESS, images)

    epochs = trained.history.get("finetune", [])
    seconds = sum(epoch["seconds"] for epoch in epochs)
    n_trained = sum(epoch["seconds"] * epoch["images_per_second"] for epoch in epochs)

    record = RowRecord(
        name=row.name,
        study=row.study,
        kind=row.kind,
        method=row.method,
        published=row.published if images.name == "cifar10" else None,
        top1=accuracy,
        top1_interval=wilson_interval(accuracy, len(images.test)),
        n_images=len(images.test),
        sparsity_before=zeros.get("quantized", 0.0),
        sparsity=_sparsity(trained, recipe),
        layers=_layer_sparsity(trained, recipe),
        size_bytes=size,
        epochs=len(epochs),
        seconds=seconds,
        images_per_second=n_trained / seconds if seconds else None,
        training=epochs,
        recipe=without_local_paths(recipe.model_dump(mode="json"), folder),
        source=file_facts(start)["sha256"],
        dataset=images.fingerprint(),
        environment=environment,
    )

    write_json(folder / RECORD, asdict(record))
    unfinished = state_path(folder / CHECKPOINT)
    unfinished.unlink(missing_ok=True)  # only now: a row killed before is resumed from it
    return record


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {folder} cannot be created: {error.strerror}") from error


def _started(start: Path, work: Work) -> NetworkState:
    """On the device, without the history of what was done to it before."""
    model = work.recipe.model.model_copy(update={"checkpoint": str(start)})
    recipe = work.recipe.model_copy(update={"model": model})
    return replace(starting_network(recipe, work.data, work.device), history={})


def _accuracy(file: Path, images: DataSet) -> float:
    """Top-1 of the packed file on all test images, in ONNX Runtime."""
    pixels = normalised(images.test.images, images.mean, images.std)
    return top1(run_batched(open_session(open_model(file).serialised()), pixels), images.test.labels)


def _layer_sparsity(state: NetworkState, recipe: Recipe) -> dict[str, float]:
    compressed = state.compressed()
    zeros = {name: compressed.effective_weight(name) == 0 for name in prunable_layers(state, recipe.prune)}
    return {name: float(zero.float().mean()) for name, zero in zeros.items()}


def _sparsity(state: NetworkState, recipe: Recipe) -> float:
    sizes = {name: weight.numel() for name, weight in prunable_layers(state, recipe.prune).items()}
    layers = _layer_sparsity(state, recipe)
    return sum(layers[name] * size for name, size in sizes.items()) / sum(sizes.values())
