"""What `study exports` does: run, write, print."""

from pathlib import Path
from typing import Any

from modelpress.benchmarks.report.page import markdown_table
from modelpress.export.files.atomic import write_atomically
from modelpress.toolkit.commands.console import TerminalProgress, answer_line, print_table
from modelpress.toolkit.commands.study.outcome import StudyAnswer
from modelpress.toolkit.output_folder import write_json
from modelpress.toolkit.studies.exports.rows import choose_rows
from modelpress.toolkit.studies.exports.run_row import ExportRecord
from modelpress.toolkit.studies.exports.study import run_study, study_record

_SIZES = {
    "row": "network and exporter",
    "onnx": "ONNX, bytes",
    "lossless": "lossless",
    "restored": "comes back",
    "eight": "8 bits",
    "uneven": "8 bits, asymmetric",
    "four": "4 bits",
    "spread": "spread",
}
_INT8 = {
    "row": "network and exporter",
    "int8": "int8, bytes",
    "packed": "int8-sparse",
    "static": "quantize_static",
    "cosine": "cosine of int8",
    "rule": "ranges by",
    "exact_cosine": "of lossless weights",
    "static_cosine": "of quantize_static",
    "seconds": "seconds",
    "exact_seconds": "of lossless weights",
    "static_seconds": "of quantize_static",
}


def study_exports(wanted: list[str], output: Path, *, overwrite: bool) -> StudyAnswer:
    """Run rows that have not been measured yet, and write all that are measured.

    Raises:
        InputError: Rows or folder are not usable.
        ModelError: A network does not hold what the study is to show.
    """
    rows = choose_rows(wanted)
    records = run_study(rows, output, TerminalProgress(), overwrite=overwrite)
    record = study_record(records)
    write_json(output / "exports.json", record)
    write_atomically(output / "exports.md", exports_markdown(records).encode())
    return StudyAnswer(record, lambda: _show(records, output))


def exports_markdown(records: list[ExportRecord]) -> str:
    """Two tables: sizes; integers beside ONNX Runtime's own."""
    tables = markdown_table(map(_sizes, records), _SIZES), markdown_table(map(_int8, records), _INT8)
    return "\n\n".join(tables) + "\n"


def _show(records: list[ExportRecord], output: Path) -> None:
    print_table("", map(_sizes, records), _SIZES)
    print_table("Integers", map(_int8, records), _INT8)
    answer_line(f"{output / 'exports.json'} holds every flavour")


def _sizes(record: ExportRecord) -> dict[str, Any]:
    return {
        "row": record.row,
        "onnx": f"{record.onnx_bytes:,}",
        "lossless": f"{record.lossless_bytes:,}",
        "restored": record.lossless,
        "eight": f"{record.press['8'].size_bytes:,}",
        "uneven": f"{record.press['8 asymmetric'].size_bytes:,}",
        "four": f"{record.press['4'].size_bytes:,}",
        "spread": f"{record.spread:.2f}",
    }


def _int8(record: ExportRecord) -> dict[str, Any]:
    int8, exact, static = record.flavours["int8"], record.flavours["int8 lossless"], record.quantize_static
    return {
        "row": record.row,
        "int8": f"{int8.size_bytes:,}",
        "packed": f"{record.flavours['int8-sparse'].size_bytes:,}",
        "static": f"{static.size_bytes:,}",
        "cosine": f"{int8.cosine:.5f}",
        "rule": int8.rule,
        "exact_cosine": f"{exact.cosine:.5f}",
        "static_cosine": f"{static.cosine:.5f}",
        "seconds": f"{int8.seconds:.1f}",
        "exact_seconds": f"{exact.seconds:.1f}",
        "static_seconds": f"{static.seconds:.1f}",
    }
