"""All networks one after the other, each kept as soon as it is measured."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from modelpress.benchmarks.environment import describe_environment
from modelpress.export.errors import InputError
from modelpress.toolkit.output_folder import prepare_output_folder, write_json
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.studies.networks.rows import ROWS, SEED, NetworkRow
from modelpress.toolkit.studies.networks.run_row import (
    N_CALIBRATION,
    N_INPUTS,
    RECIPE,
    NetworkRecord,
    run_network,
)

PRESS, RECORD = "model.press", "row.json"
_RECORDS = TypeAdapter(NetworkRecord)
_PACKAGES = ("modelpress", "onnx", "onnxruntime", "torch", "torchvision")


def run_study(
    rows: Iterable[NetworkRow], output: Path, progress: Progress, *, overwrite: bool = False
) -> list[NetworkRecord]:
    """Run what has not been run yet; with `overwrite`, everything that was asked for.

    Returns:
        Records of these rows, and of all others that were measured in this folder before, in the order of the study.

    Raises:
        ModelError: A row does not hold what the study is to show; rows before it are kept.
        InputError: The folder cannot be written, or a record in it is damaged.
    """
    made_with = _made_with()
    prepare_output_folder(output, overwrite=True, resume=None)  # nothing in it is a reason to refuse
    records = {}
    for row in rows:
        progress.stage(f"{row.name}: {row.source}")
        folder = output / "rows" / row.name
        earlier = None if overwrite else _measured_before(folder, made_with)
        records[row.name] = _measured(row, folder, made_with) if earlier is None else earlier
        progress.note(_told(records[row.name]) + ", measured before" * (earlier is not None))

    for name in ROWS:
        found = None if name in records else _measured_before(output / "rows" / name, made_with)
        if found is not None:
            records[name] = found
    return [records[name] for name in ROWS if name in records]


def study_record(records: list[NetworkRecord]) -> dict[str, Any]:
    """What the study's JSON file holds."""
    measured = {record.name for record in records}
    return {
        "schema_version": 1,
        "kind": "networks-study",
        "environment": describe_environment(),
        "rows": [record.as_json() for record in records],
        "not_run": [name for name in ROWS if name not in measured],
    }


def _measured(row: NetworkRow, folder: Path, made_with: dict[str, Any]) -> NetworkRecord:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {folder} cannot be created: {error.strerror}") from error

    (folder / RECORD).unlink(missing_ok=True)  # the next file written is another artifact than the record's
    record = run_network(row, folder / PRESS, made_with)
    write_json(folder / RECORD, record.as_json())
    return record


def _measured_before(folder: Path, made_with: dict[str, Any]) -> NetworkRecord | None:
    """The record of an earlier run of the very same row.

    Raises:
        InputError: It is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = _RECORDS.validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise InputError(f"{path} is damaged; delete it to run the row again") from error
    return record if record.made_with == made_with else None


def _made_with() -> dict[str, Any]:
    """What changes the result, as JSON gives it back."""
    return {
        "prune": {"sparsity": RECIPE["prune"]["sparsity"], "exclude": []},
        "quantize": {"bits": RECIPE["quantize"]["bits"], "layers": {}},
        "seed": SEED,
        "inputs": N_INPUTS,
        "calibration_inputs": N_CALIBRATION,
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _told(record: NetworkRecord) -> str:
    return (
        f"{record.coded_layers} of {record.weight_layers} layers in codes, {record.press_bytes:,} bytes, "
        f"difference {record.difference:.1e}, spread {record.spread:.2f}"
    )
