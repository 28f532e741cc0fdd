"""What `study tasks` does: run, hand over, verify, write, print."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from modelpress.benchmarks.report.page import markdown_table
from modelpress.benchmarks.report.tables import percent
from modelpress.export.files.atomic import write_atomically
from modelpress.toolkit.commands.bundle.making import BundleRequest, make_bundle
from modelpress.toolkit.commands.console import TerminalProgress, answer_line, print_table
from modelpress.toolkit.commands.study.outcome import StudyAnswer
from modelpress.toolkit.compression.run_folder import PRESS
from modelpress.toolkit.data.measured_set import MeasuredSet
from modelpress.toolkit.model_files.onnx_writing import FlavourRequest, write_flavour
from modelpress.toolkit.output_folder import write_json
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.studies.tasks.rows import TaskRow, choose_rows
from modelpress.toolkit.studies.tasks.study import (
    TaskRecord,
    run_task,
    study_record,
    task_record,
    verify_alone,
    write_source,
)

_COLUMNS = {
    "task": "task",
    "examples": "train / test",
    "float": "float, top-1",
    "packed": "packed, top-1",
    "p": "McNemar p",
    "int8": "int8, top-1",
    "zeros": "zeros",
    "float_bytes": "float ONNX, bytes",
    "press_bytes": ".press, bytes",
    "smaller": "smaller by",
}


def study_tasks(wanted: list[str], output: Path) -> StudyAnswer:
    """Run the tasks, and write what was measured.

    Raises:
        CommandLineError: There is no such task.
        ModelError: A bundle does not hold what it claims.
    """
    progress = TerminalProgress()
    records = [run_row(row, output / row.name, progress) for row in choose_rows(wanted)]
    record = study_record(records)
    write_json(output / "tasks.json", record)
    write_atomically(output / "tasks.md", (table_of(record) + "\n").encode())
    return StudyAnswer(record, lambda: _show(records, output))


def run_row(
    row: TaskRow,
    folder: Path,
    progress: Progress,
    *,
    settings: Mapping[str, Any] | None = None,
    limit: int | None = None,
) -> TaskRecord:
    """One task from its data to its checked bundle.

    Args:
        row: Which.
        folder: Of its data, run and bundle.
        progress: Told of everything.
        settings: Of the recipe, in place of the row's own.
        limit: Examples at most.
    """
    progress.stage(f"{row.name}: {row.data}")
    source = write_source(row, folder, limit)
    results = run_task(row, source, folder / "run", progress, settings)
    request = BundleRequest(
        flavour="float",
        write_model=partial(write_flavour, request=FlavourRequest("float")),
        data=MeasuredSet(own={"data": {"source": str(source)}}),
        test_data=True,
        archive=False,
        overwrite=True,
    )
    manifest = make_bundle(folder / "run" / PRESS, folder / "bundle", request, progress)
    verified = verify_alone(folder / "bundle", folder / "runtime")
    assert manifest.claims.accuracy is not None  # every task here is one of classes
    n_train = int(results.dataset["training_examples"])
    progress.note(f"verify.py, with numpy and onnxruntime alone: {verified}")
    return task_record(row, results, n_train, verified)


def table_of(record: dict[str, Any]) -> str:
    """The table of a study's record, in Markdown."""
    return markdown_table((_row(TaskRecord(**task)) for task in record["tasks"]), _COLUMNS)


def _show(records: list[TaskRecord], output: Path) -> None:
    print_table("", map(_row, records), _COLUMNS)
    answer_line(f"{output}/tasks.json, tasks.md")


def _row(record: TaskRecord) -> dict[str, str]:
    low, high = record.float_interval
    return {
        "task": f"{record.name}: {record.network}, {record.data}",
        "examples": f"{record.n_train:,} / {record.n_test:,}",
        "float": f"{100 * record.float_top1:.2f} ± {50 * (high - low):.2f} %",
        "packed": f"{100 * record.top1:.2f} ± {50 * (record.interval[1] - record.interval[0]):.2f} %",
        "p": f"{record.p_value:.2g}",
        "int8": percent(record.int8_top1, digits=2),
        "zeros": percent(record.zeros, digits=1),
        "float_bytes": f"{record.float_bytes:,}",
        "press_bytes": f"{record.press_bytes:,}",
        "smaller": f"{record.float_bytes / record.press_bytes:.1f}x",
    }
