"""The options that `study prune`, `study quantize` and `study frontier` share, and the command that they make."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import DATA, OUTPUT, RECIPE, AsJson
from modelpress.toolkit.commands.recipe_options import (
    RECIPES_OWN,
    Bf16,
    Config,
    DataDir,
    DeviceName,
    Download,
    Seed,
    Settings,
    common_keys,
    merged_recipe,
)
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


def named_rows(rows: str) -> list[str]:
    """The names and patterns of ``--rows``; all, where there are none.

    Example:
        >>> named_rows("dense, one-shot-*"), named_rows("")
        (['dense', 'one-shot-*'], ['all'])
    """
    return [text.strip() for text in rows.split(",") if text.strip()] or ["all"]


def network_study(study: Literal["prune", "quantize", "frontier"], text: str) -> Callable[..., None]:
    """The command of a study: all take the same options.

    Args:
        study: Which one.
        text: Its help.
    """

    def command(
        rows: Rows = "all",
        config: Config = None,
        checkpoint: Dense = None,
        data_dir: DataDir = None,
        download: Download = False,
        settings: Settings = [],
        epochs: RowEpochs = None,
        seed: Seed = None,
        device: DeviceName = None,
        bf16: Bf16 = None,
        output: StudyFolder = STUDIES,
        overwrite: StartAgain = False,
        as_json: AsJson = False,
    ) -> None:
        options = {
            "model.checkpoint": checkpoint,
            **common_keys(None, data_dir, download, seed, device, bf16),
        }
        base = merged_recipe(config, list(settings), options)
        need_torch()
        from modelpress.toolkit.commands.study.network import run_network_study

        outcome = run_network_study(study, named_rows(rows), base, output, epochs=epochs, overwrite=overwrite)
        answer(outcome.record, outcome.show, as_json=as_json)

    command.__doc__ = text
    return command
