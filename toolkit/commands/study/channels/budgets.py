"""What `study budgets` does."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from modelpress.export.errors import CommandLineError
from modelpress.toolkit.commands.console import TerminalProgress, print_table
from modelpress.toolkit.commands.study.outcome import StudyAnswer
from modelpress.toolkit.output_folder import check_output_file, write_json
from modelpress.toolkit.recipe import BudgetOptions, ModelOptions
from modelpress.toolkit.studies.channels.budgets import BATCHES, measure_budgets

_COLUMNS = {
    "budget": "budget",
    "parameters": "parameters",
    "macs": "multiplications",
    "bytes": "bytes, 4 bits",
    **{f"float{n}": f"float, batch {n}" for n in BATCHES},
    **{f"int8{n}": f"int8, batch {n}" for n in BATCHES},
}


def study_budgets(
    checkpoint: Path,
    model: Mapping[str, str],
    budgets: Sequence[str],
    multiples: Sequence[int],
    output: Path | None,
    *,
    overwrite: bool,
) -> StudyAnswer:
    """Find what keeps the budgets, and measure it.

    Raises:
        InputError: The file or the checkpoint is not usable, or a budget is none.
    """
    if output is not None:
        check_output_file(output, overwrite=overwrite)
    try:
        for budget in budgets:
            BudgetOptions(latency=budget)
        options = ModelOptions.model_validate(model)
    except ValidationError as error:
        raise CommandLineError(f"{error.errors()[0]['msg']}; expected a budget as in 0.75x") from error

    record = measure_budgets(checkpoint, options, budgets, multiples, progress=TerminalProgress())
    if output is not None:
        write_json(output, record)
    return StudyAnswer(
        record, lambda: print_table("Latency over the full network's", _rows(record), _COLUMNS)
    )


def _rows(record: dict[str, Any]) -> Iterator[dict[str, str]]:
    for row in record["rows"]:
        full = row["budget"] is None
        name = "full" if full else f"{row['budget']}, multiples of {row['multiple']}"
        if row["words"]:
            yield {"budget": f"{name}: not met", **dict.fromkeys(list(_COLUMNS)[1:], "")}
            continue
        yield {
            "budget": name,
            "parameters": f"{row['parameters']:,}",
            "macs": f"{row['macs'] / 1e6:.1f} M",
            "bytes": f"{row['bytes'][1]:,}",
            **{f"float{n}": f"{ratio:.2f}" for n, ratio in row["float_latency"].items()},
            **{f"int8{n}": f"{ratio:.2f}" for n, ratio in row["int8_latency"].items()},
        }
