"""What `study prune`, `study quantize` and `study frontier` do: run, write, draw, print."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from modelpress.benchmarks.report.page import markdown_table
from modelpress.export.files.atomic import write_atomically
from modelpress.toolkit.commands.console import TerminalProgress, answer_line, print_table
from modelpress.toolkit.commands.study.outcome import StudyAnswer
from modelpress.toolkit.output_folder import prepare_output_folder, write_json
from modelpress.toolkit.recipe import Recipe
from modelpress.toolkit.studies.figure_files import save_figure
from modelpress.toolkit.studies.published.figures import (
    accuracy_by_bits,
    accuracy_by_bytes,
    accuracy_by_sparsity,
)
from modelpress.toolkit.studies.published.rows import Study
from modelpress.toolkit.studies.published.run_row import RowRecord
from modelpress.toolkit.studies.published.study import plan_study, run_study, study_record

_MISSING = "–"
_HEADINGS = {
    "row": "row",
    "published": "published",
    "ours": "ours",
    "difference": "difference",
    "sparsity": "sparsity",
    "bytes": "bytes",
    "epochs": "epochs",
    "seconds": "seconds",
    "rate": "images/s",
}
_CSV = (
    "name",
    "kind",
    "method",
    "published",
    "top1",
    "difference",
    "sparsity_before",
    "sparsity",
    "size_bytes",
    "epochs",
    "seconds",
    "images_per_second",
)

_DRAW: dict[Study, Callable[[Sequence[RowRecord]], Figure]] = {
    "prune": accuracy_by_sparsity,
    "quantize": accuracy_by_bits,
    "frontier": accuracy_by_bytes,
}


def run_network_study(
    study: Study, wanted: list[str], base: Recipe, output: Path, *, epochs: int | None, overwrite: bool
) -> StudyAnswer:
    """Run rows that have not been measured yet, and write all that are measured.

    Rows measured before with the same recipe, start and data are taken as they are. With `overwrite` those asked for
    run again, but not the ones that they start from.

    Raises:
        InputError: Rows, checkpoint, data or folder are not usable.
        Interrupted: Stopped on request; what is measured is kept.
    """
    plan = plan_study(study, wanted, base, output, epochs=epochs)
    prepare_output_folder(output, overwrite=True, resume=None)  # nothing in it is a reason to refuse
    records = run_study(plan, TerminalProgress(), overwrite=overwrite)
    record = study_record(plan, records)
    write_json(output / f"{study}.json", record)
    write_atomically(output / f"{study}.csv", _csv(records).encode())
    write_atomically(
        output / f"{study}.md", (markdown_table(map(_cells, records), _HEADINGS) + "\n").encode()
    )
    save_figure(_DRAW[study](records), output, study)

    return StudyAnswer(record, lambda: _show(study, records, output))


def _show(study: Study, records: list[RowRecord], output: Path) -> None:
    print_table("", [_cells(record) for record in records], _HEADINGS)
    answer_line(
        "top-1 on all test images, of the packed file in ONNX Runtime, after the last epoch; difference: ours minus "
        "published, in points; sparsity: zeros in all prunable layers",
    )
    answer_line(f"{study}.json, .csv, .md, .png and .svg are in {output}/")


def _cells(record: RowRecord) -> dict[str, str]:
    return {
        "row": record.name,
        "published": _MISSING if record.published is None else f"{record.published:.2f}",
        "ours": f"{100 * record.top1:.2f}",
        "difference": _MISSING if record.difference is None else f"{record.difference:+.2f}",
        "sparsity": f"{record.sparsity:.2%}",
        "bytes": f"{record.size_bytes:,}",
        "epochs": f"{record.epochs}",
        "seconds": f"{record.seconds:,.0f}",
        "rate": _MISSING if record.images_per_second is None else f"{record.images_per_second:,.0f}",
    }


def _csv(records: list[RowRecord]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV)
    writer.writerows([getattr(record, column) for column in _CSV] for record in records)
    return text.getvalue()
