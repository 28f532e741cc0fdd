"""What `study channels` does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelpress.export.errors import CommandLineError
from modelpress.toolkit.commands.console import TerminalProgress, print_table
from modelpress.toolkit.commands.study.outcome import StudyAnswer
from modelpress.toolkit.output_folder import check_output_file, write_json
from modelpress.toolkit.studies.channels.equality import NETWORKS, measure_equality

_COLUMNS = {
    "network": "network",
    "parameters": "parameters",
    "macs": "multiplications",
    "torch": "difference in torch",
    "onnx": "in ONNX Runtime",
    "varies": "outputs vary by",
}


def study_channels(networks: str, output: Path | None, *, overwrite: bool) -> StudyAnswer:
    """Prune, take out and compare.

    Raises:
        InputError: The file is not usable, or there is no such network.
    """
    if output is not None:
        check_output_file(output, overwrite=overwrite)
    names = list(NETWORKS) if networks == "all" else [name.strip() for name in networks.split(",")]
    unknown = [name for name in names if name not in NETWORKS]
    if unknown:
        raise CommandLineError(f"there is no network {unknown[0]!r}; choose among {', '.join(NETWORKS)}")

    record = measure_equality(names, progress=TerminalProgress())
    if output is not None:
        write_json(output, record)
    title = f"{record['sparsity']:.0%} of the weights removed in whole channels"
    return StudyAnswer(record, lambda: print_table(title, _rows(record), _COLUMNS))


def _rows(record: dict[str, Any]) -> Iterator[dict[str, str]]:
    for row in record["rows"]:
        in_torch = row["torch_difference"]
        yield {
            "network": row["network"],
            "parameters": " → ".join(f"{n:,}" for n in row["parameters"]),
            "macs": " → ".join(f"{n / 1e6:,.1f} M" for n in row["macs"]),
            "torch": "stay masked" if in_torch is None else f"{in_torch:.0e}",
            "onnx": f"{row['onnx_difference']:.0e}",
            "varies": f"{row['varies']:.0%}",
        }
