"""All rows one after the other, each kept as soon as it is measured."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from modelpress.benchmarks.environment import describe_environment
from modelpress.export.errors import InputError
from modelpress.toolkit.output_folder import prepare_output_folder, write_json
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.studies.exports.rows import ROWS
from modelpress.toolkit.studies.exports.run_row import N_CALIBRATION, N_INPUTS, SIZE, ExportRecord, run_row

_RECORDS = TypeAdapter(ExportRecord)


def run_study(
    rows: Iterable[str], output: Path, progress: Progress, *, overwrite: bool = False
) -> list[ExportRecord]:
    """Run what has not been run yet; with `overwrite`, everything that was asked for.

    Returns:
        Records of all rows that were measured in this folder, in the order of the study.

    Raises:
        ModelError: As for `run_row`; rows before it are kept.
        InputError: The folder cannot be written, or a record in it is damaged.
    """
    prepare_output_folder(output, overwrite=True, resume=None)  # nothing in it is a reason to refuse
    for row in rows:
        if not overwrite and _measured_before(output, row) is not None:
            continue
        progress.stage(row)
        with tempfile.TemporaryDirectory() as scratch:
            record = run_row(row, Path(scratch))
        write_json(output / f"{row}.json", record.as_json())
        progress.note(_told(record))

    found = [_measured_before(output, row) for row in ROWS]
    return [record for record in found if record is not None]


def study_record(records: list[ExportRecord]) -> dict[str, Any]:
    """What the study's JSON file holds."""
    measured = {record.row for record in records}
    return {
        "schema_version": 1,
        "kind": "exports-study",
        "environment": describe_environment(),
        "inputs": {"size": SIZE, "measured": N_INPUTS, "calibration": N_CALIBRATION},
        "rows": [record.as_json() for record in records],
        "not_run": [row for row in ROWS if row not in measured],
    }


def _measured_before(output: Path, row: str) -> ExportRecord | None:
    path = output / f"{row}.json"
    if not path.is_file():
        return None
    try:
        return _RECORDS.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(f"{path} is damaged; delete it to run the row again") from error


def _told(record: ExportRecord) -> str:
    int8, exact = (record.flavours[f"int8{kind}"] for kind in ("", " lossless"))
    static = record.quantize_static
    sizes = ", ".join(
        f"{kind.replace('8', '8 bits').replace('4', '4 bits')} {found.size_bytes:,}"
        for kind, found in record.press.items()
    )
    return (
        f"{record.onnx_bytes:,} bytes; {sizes}, lossless {record.lossless_bytes:,} ({record.lossless}); "
        f"int8 cosine {int8.cosine:.4f} ({int8.rule}), of lossless weights {exact.cosine:.4f} ({exact.rule}), "
        f"quantize_static {static.cosine:.4f}; {int8.seconds:.1f}, {exact.seconds:.1f} and {static.seconds:.1f} s"
    )
