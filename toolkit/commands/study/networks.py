"""What `study networks` does: run, write, print."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from modelpress.benchmarks.report.page import markdown_table
from modelpress.export.files.atomic import write_atomically
from modelpress.export.onnx_flavours import FLAVOURS
from modelpress.toolkit.commands.console import TerminalProgress, answer_line, print_table
from modelpress.toolkit.commands.study.outcome import StudyAnswer
from modelpress.toolkit.output_folder import write_json
from modelpress.toolkit.studies.networks.rows import choose_networks
from modelpress.toolkit.studies.networks.run_row import FlavourRecord, NetworkRecord
from modelpress.toolkit.studies.networks.study import run_study, study_record

_SIZES = {
    "row": "network",
    "parameters": "parameters",
    "layers": "weight layers",
    "coded": "in codes",
    "float": "float ONNX, bytes",
    "press": ".press, bytes",
    "smaller": "smaller by",
    "difference": "difference",
    "spread": "spread",
}
_NARROW = {key: _SIZES[key] for key in ("row", "layers", "coded", "press", "smaller", "difference", "spread")}
_FLAVOURS = {"row": "network", **{name: name for name in FLAVOURS if name != "float"}}
_LEFT = {"row": "network", "left": "left in float", "reason": "reason"}
_MISSING = "–"


def study_networks(wanted: list[str], output: Path, *, overwrite: bool) -> StudyAnswer:
    """Run networks that have not been measured yet, and write all that are measured.

    Raises:
        InputError: Rows or folder are not usable.
        ModelError: A network does not hold what the study is to show.
    """
    rows = choose_networks(wanted)
    records = run_study(rows, output, TerminalProgress(), overwrite=overwrite)
    record = study_record(records)
    write_json(output / "networks.json", record)
    write_atomically(output / "networks.md", networks_markdown(records).encode())
    return StudyAnswer(record, lambda: _show(records, output))


def networks_markdown(records: list[NetworkRecord]) -> str:
    """Three tables: sizes and agreement; flavours; what stays in float, and why."""
    tables = (
        markdown_table(map(_sizes, records), _SIZES),
        markdown_table(map(_flavours, records), _FLAVOURS),
        markdown_table((row for record in records for row in _left(record)), _LEFT).replace("---:", "---"),
    )
    return "\n\n".join(tables) + "\n"


def _show(records: list[NetworkRecord], output: Path) -> None:
    print_table("", map(_sizes, records), _SIZES, narrow=[_NARROW])
    print_table(
        "Flavours: bytes, and difference or cosine of the outputs", map(_flavours, records), _FLAVOURS
    )
    answer_line(
        "difference: largest one of an output in ONNX Runtime to PyTorch's, over the range of all outputs; spread: how "
        "far an output moves from input to input, over the same range"
    )
    answer_line(f"networks.json and networks.md, with what stays in float and why, are in {output}/")


def _sizes(record: NetworkRecord) -> dict[str, str]:
    in_float = record.flavours["float"].size_bytes
    return {
        "row": record.name,
        "parameters": f"{record.parameters:,}",
        "layers": f"{record.weight_layers}",
        "coded": f"{record.coded_layers}",
        "float": f"{in_float:,}",
        "press": f"{record.press_bytes:,}",
        "smaller": f"{in_float / record.press_bytes:.1f}x",
        "difference": f"{record.difference:.1e}",
        "spread": f"{record.spread:.3f}",
    }


def _flavours(record: NetworkRecord) -> dict[str, str]:
    cells = {
        name: _flavour(record.flavours[name], integer=made.integer is not None)
        for name, made in FLAVOURS.items()
        if name != "float"
    }
    return {"row": record.name, **cells}


def _flavour(record: FlavourRecord, *, integer: bool) -> str:
    """Size and agreement: cosines of flavours that compute in float are 1 but for the last digits."""
    if record.refused:
        return f"{_MISSING} {record.refused}"
    agrees = f"cosine {record.cosine:.4f}" if integer else f"{record.difference:.1e}"
    return f"{record.size_bytes:,} ({agrees})"


def _left(record: NetworkRecord) -> Iterator[dict[str, str]]:
    """Weights without codes first, then operators of the integer flavours; those of one reason in one line."""
    by_reason: defaultdict[str, list[str]] = defaultdict(list)
    for plan in record.left:
        by_reason[plan.reason].append(plan.name)
    for island in record.islands:
        by_reason[f"int8: {island.reason}"].append(f"{island.count} {island.operator}")
    for reason, what in by_reason.items():
        yield {"row": record.name, "left": ", ".join(what), "reason": reason}
