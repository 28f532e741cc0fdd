"""What `study tasks` does: a run of each task, its bundle, and the checks of that with numpy and onnxruntime alone."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from modelpress.benchmarks.environment import describe_environment
from modelpress.benchmarks.records import ModelRecord, Results
from modelpress.export.errors import ModelError
from modelpress.export.isolation.fresh import fresh_process
from modelpress.toolkit.compression.run import run_recipe
from modelpress.toolkit.compression.run_folder import DENSE, PRESS
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.studies.tasks.rows import TaskRow

SCHEMA_VERSION = 1
_RUNTIME = ("numpy", "onnxruntime")  # with what they need themselves
_SECONDS = 120


@dataclass(frozen=True)
class TaskRecord:
    """One task, float against compressed.

    Attributes:
        float_top1: Of the test examples, in ONNX Runtime.
        p_value: McNemar's, of the packed network against the float one.
        float_bytes: The dense network as an ONNX file.
        zeros: Share of the weights that are exactly zero.
        int8_top1: Of the integer flavour.
        verified: What the bundle's verify.py said, in an environment with numpy and onnxruntime alone.
    """

    name: str
    data: str
    network: str
    n_train: int
    n_test: int
    float_top1: float
    float_interval: tuple[float, float]
    top1: float
    interval: tuple[float, float]
    p_value: float
    float_bytes: int
    press_bytes: int
    zeros: float
    int8_top1: float
    verified: str
    recipe: dict[str, Any]


def write_source(row: TaskRow, folder: Path, limit: int | None = None) -> Path:
    """The examples of a task, in a folder of its own."""
    place = folder / "data"
    place.mkdir(parents=True, exist_ok=True)
    return row.write(place, limit)


def task_record(row: TaskRow, results: Results, n_train: int, verified: str) -> TaskRecord:
    """What is shown of a run."""
    files = {model.path: model for model in results.models}
    dense, packed, integer = files[DENSE], files[PRESS], files["model-int8.onnx"]
    assert packed.paired is not None  # it is not the baseline
    return TaskRecord(
        name=row.name,
        data=row.data,
        network=row.network,
        n_train=n_train,
        n_test=dense.n_images,
        float_top1=_top1(dense)[0],
        float_interval=_top1(dense)[1],
        top1=_top1(packed)[0],
        interval=_top1(packed)[1],
        p_value=packed.paired.p_value,
        float_bytes=dense.size_bytes,
        press_bytes=packed.size_bytes,
        zeros=packed.sparsity or 0.0,
        int8_top1=_top1(integer)[0],
        verified=verified,
        recipe=results.recipe,
    )


def _top1(model: ModelRecord) -> tuple[float, tuple[float, float]]:
    assert model.top1 is not None  # every task here is one of classes
    assert model.top1_interval is not None
    return model.top1, model.top1_interval


def run_task(
    row: TaskRow,
    source: Path,
    folder: Path,
    progress: Progress,
    settings: Mapping[str, Any] | None = None,
) -> Results:
    """Train, compress and measure."""
    results = run_recipe(row.recipe(source, settings), folder, overwrite=True, progress=progress)
    assert results is not None  # one process alone
    return results


def verify_alone(bundle: Path, scratch: Path) -> str:
    """Run a bundle's own `verify.py` where numpy and onnxruntime can be imported, and nothing else; its last line.

    Raises:
        ModelError: A claim fails.
    """
    done = subprocess.run(
        fresh_process("-S", str(bundle.absolute() / "verify.py")),
        env={**os.environ, "PYTHONPATH": str(_runtime_alone(scratch))},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        raise ModelError(
            f"{bundle}: verify.py ends with {done.returncode}: {(done.stdout + done.stderr)[-500:]}"
        )
    return done.stdout.splitlines()[-1]


def _runtime_alone(folder: Path) -> Path:
    """A folder with links to the packages that running a model needs."""
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    waiting, seen = list(_RUNTIME), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        package = distribution(name)
        for file in package.files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (folder / top).exists():
                (folder / top).symlink_to(Path(str(package.locate_file(top))))
        needed = (text for text in package.requires or () if "extra ==" not in text)
        waiting += [text.split(";")[0].split("[")[0].split(">")[0].split("=")[0].strip() for text in needed]
    return folder


def study_record(records: list[TaskRecord]) -> dict[str, Any]:
    """What the study's JSON file holds."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "tasks",
        "environment": describe_environment(),
        "tasks": [asdict(record) for record in records],
    }
