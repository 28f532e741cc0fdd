"""The options that `study prune`, `study quantize` and `study frontier` share, and their call."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import DATA, OUTPUT, RECIPE
from modelpress.toolkit.commands.recipe_options import RECIPES_OWN, merged_recipe
from modelpress.toolkit.commands.requirements import need_torch

Rows = Annotated[
    str,
    typer.Option(
        "--rows",
        help="Names or patterns of rows, or kinds of them (post-training, reference, improved, priced, fixed, matched, "
        "all), with commas.",
        rich_help_panel=RECIPE,
    ),
]
RowEpochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        min=1,
        help="Epochs of every row that is trained; schedules shrink or grow in proportion.",
        show_default="the rows' own",
        rich_help_panel=RECIPE,
    ),
]
Dense = Annotated[
    Path | None,
    typer.Option(
        help="The trained network (.pt state dict or .safetensors).",
        show_default=RECIPES_OWN,
        rich_help_panel=DATA,
    ),
]
StudyFolder = Annotated[
    Path,
    typer.Option(
        "-o",
        "--output-dir",
        help="Folder of all rows; those measured there before are not run again.",
        rich_help_panel=OUTPUT,
    ),
]
StartAgain = Annotated[
    bool, typer.Option("--overwrite", help="Run the chosen rows again.", rich_help_panel=OUTPUT)
]
STUDIES = Path("runs/studies")


def run_study(
    study: Literal["prune", "quantize", "frontier"],
    rows: str,
    config: Path | None,
    options: dict[str, Any],
    output: Path,
    *,
    epochs: int | None,
    overwrite: bool,
    as_json: bool,
    settings: Sequence[str] = (),
) -> None:
    """Run the rows that are asked for, and show all that are measured."""
    base = merged_recipe(config, list(settings), options)
    need_torch()
    from modelpress.toolkit.commands.study.network import run_network_study

    wanted = [text.strip() for text in rows.split(",") if text.strip()] or ["all"]
    outcome = run_network_study(study, wanted, base, output, epochs=epochs, overwrite=overwrite)
    answer(outcome.record, outcome.show, as_json=as_json)
