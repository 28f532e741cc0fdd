"""A whole study: chosen rows one after the other, each kept as soon as it is measured."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelpress.benchmarks.environment import describe_environment
from modelpress.export.errors import CommandLineError, InputError
from modelpress.toolkit.compression.starting import (
    check_dense,
    held_out_share,
    images_for,
    load_named,
    starting_network,
)
from modelpress.toolkit.compression.work import Work
from modelpress.toolkit.data.data_set import DataSet
from modelpress.toolkit.output_folder import file_facts
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.recipe import Recipe, with_epochs
from modelpress.toolkit.studies.published.rows import ROWS, Row, Study, choose_rows, rows_asked_for
from modelpress.toolkit.studies.published.run_row import (
    CHECKPOINT,
    PRESS,
    RECORD,
    RowRecord,
    finished_row,
    forget_row,
    run_row,
)
from modelpress.toolkit.training.device import device_of

_KINDS: dict[Study, str] = {
    "prune": "pruning-study",
    "quantize": "quantization-study",
    "frontier": "frontier-study",
}


@dataclass(frozen=True)
class StudyPlan:
    """What a study will do.

    Attributes:
        study: Which one.
        rows: With their recipes, each after those that it needs.
        base: Data, model, seed and run options of all rows.
        output: One folder per row is in ``rows/`` below.
        asked_for: Names of rows; the others are there because one of these needs them.
        others: Rows of the study that are not run now; shown if they were measured before.
    """

    study: Study
    rows: list[tuple[Row, Recipe]]
    base: Recipe
    output: Path
    asked_for: frozenset[str]
    others: list[tuple[Row, Recipe]]

    @property
    def epochs(self) -> int:
        """Of training, in all rows together."""
        return sum(recipe.finetune.epochs for _, recipe in self.rows)

    def folder(self, row: str) -> Path:
        """Where a row keeps its files."""
        return self.output / "rows" / row

    def start(self, row: Row) -> Path:
        """The checkpoint that a row starts from."""
        return (
            Path(str(self.base.model.checkpoint))
            if row.start is None
            else self.folder(row.start) / CHECKPOINT
        )

    def sized(self, row: Row, recipe: Recipe) -> Recipe:
        """The recipe; of a row that is to be as large as another's file, with the size of that.

        Raises:
            InputError: The other row's file is gone.
        """
        if row.size_of is None:
            return recipe

        path = self.folder(row.size_of) / PRESS
        if not path.is_file():
            raise InputError(f"{path} is gone, and {row.name} is to be as large; delete {RECORD} beside it")
        finetune = recipe.finetune.model_copy(update={"target_bytes": path.stat().st_size})
        return recipe.model_copy(update={"finetune": finetune})


def plan_study(
    study: Study, wanted: list[str], base: Recipe, output: Path, *, epochs: int | None = None
) -> StudyPlan:
    """Choose rows and make their recipes.

    Args:
        study: Which one.
        wanted: See `rows_asked_for`.
        base: Its sections data, model, seed and run count.
        output: Folder of the study.
        epochs: Of every training row, in place of its own 20; its schedules shrink or grow in proportion.

    Raises:
        InputError: A name fits no row, there is no checkpoint, or a schedule does not fit the epochs.
    """
    if base.model.checkpoint is None:
        raise CommandLineError("the study starts from a trained network: pass --checkpoint FILE")
    chosen = choose_rows(study, wanted)
    rest = [row for row in ROWS.values() if row.study == study and row not in chosen]
    rows, others = ([(row, _scaled(row.recipe(base), epochs)) for row in part] for part in (chosen, rest))
    asked_for = frozenset(row.name for row in rows_asked_for(study, wanted))

    return StudyPlan(study, rows, base, output, asked_for, others)


def run_study(plan: StudyPlan, progress: Progress, *, overwrite: bool = False) -> list[RowRecord]:
    """Run what has not been run yet; with `overwrite`, everything that was asked for.

    Returns:
        Records of these rows, and of all others that were measured in this folder before, in the order of the study.

    Raises:
        Interrupted: Stopped on request; everything measured is kept, and the same call without `overwrite` goes on.
        InputError: Data or checkpoint are not usable.
    """
    base = plan.base

    device = device_of(base.run)
    images = load_named(base)
    dense = starting_network(base, images, device)
    check_dense(dense)
    for note in dense.notes:
        progress.note(note)
    images = images_for(dense, images)
    progress.note(f"rows: {len(plan.rows)}; epochs of training in all: {plan.epochs}")
    if overwrite:  # only now: a mistyped path costs no results
        for name in plan.asked_for:
            forget_row(plan.folder(name))

    environment = {**describe_environment(), "training_device": device.describe()}
    records = []
    for row, recipe in plan.rows:  # one after the other: a row may need what an earlier one has written
        work = Work(recipe=plan.sized(row, recipe), data=images, device=device, progress=progress)
        records.append(_measured(plan, row, work, environment))

    for row, recipe in plan.others:
        of_size = plan.start(row) if row.size_of is None else plan.folder(row.size_of) / PRESS
        there = plan.start(row).is_file() and of_size.is_file()
        earlier = _measured_before(plan, row, plan.sized(row, recipe), images) if there else None
        records += [] if earlier is None else [earlier]
    return sorted(records, key=lambda record: list(ROWS).index(record.name))


def _measured(plan: StudyPlan, row: Row, work: Work, environment: dict[str, Any]) -> RowRecord:
    """The row's record, of an earlier run if there is one.

    Args:
        plan: Says where the row starts and what it writes.
        row: Which.
        work: Its images are all of them; the row holds out its own.
        environment: Goes into the record.
    """
    recipe, progress = work.recipe, work.progress
    earlier = _measured_before(plan, row, recipe, work.data)
    progress.stage(f"{row.name}: {row.method}")
    if earlier is not None:
        progress.note(f"{earlier.top1:.2%}, measured before")
        return earlier

    epochs = recipe.finetune.epochs
    progress.note(f"epochs of training: {epochs}" if epochs else "no training")
    held_out = replace(work, data=work.data.hold_out(held_out_share(recipe.data)))
    record = run_row(
        row, held_out, start=plan.start(row), folder=plan.folder(row.name), environment=environment
    )
    progress.note(f"{record.top1:.2%} of {record.n_images:,} test images, {record.size_bytes:,} bytes")
    return record


def _measured_before(plan: StudyPlan, row: Row, recipe: Recipe, images: DataSet) -> RowRecord | None:
    source = _sha256(plan.start(row))
    return finished_row(plan.folder(row.name), recipe, source=source, dataset=images.fingerprint())


def study_record(plan: StudyPlan, records: list[RowRecord]) -> dict[str, Any]:
    """What the study's JSON file holds."""
    return {
        "schema_version": 1,
        "kind": _KINDS[plan.study],
        "rows": [{**vars(record), "difference": record.difference} for record in records],
        "not_run": [
            row.name for row in ROWS.values() if row.study == plan.study and row.name not in _names(records)
        ],
    }


def _sha256(start: Path) -> str:
    if not start.is_file():
        raise InputError(f"{start} is gone, and later rows start from it; delete {RECORD} beside it")
    return str(file_facts(start)["sha256"])


def _names(records: list[RowRecord]) -> set[str]:
    return {record.name for record in records}


def _scaled(recipe: Recipe, epochs: int | None) -> Recipe:
    """The recipe with another number of epochs, schedules in proportion; rows without training stay as they are."""
    if epochs is None or not recipe.finetune.epochs:
        return recipe
    if epochs == 0:
        raise CommandLineError("--epochs 0 leaves nothing of a training row; choose --rows post-training")
    return with_epochs(recipe, epochs)
