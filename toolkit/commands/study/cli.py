"""The `study` commands: whole series of experiments, with tables and figures."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from modelpress.export.errors import InputError
from modelpress.toolkit.commands.options import (
    DATA,
    MEASUREMENT,
    OUTPUT,
    RECIPE,
    AsJson,
    Bf16,
    Config,
    DataDir,
    DeviceName,
    Download,
    Overwrite,
    Seed,
    common_keys,
    emit_json,
    merged_recipe,
    need_torch,
)

study_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")

_PROBLEM = "Your own problem"


@study_app.command("sparse-regression")
def sparse_regression(
    x_file: Annotated[
        Path | None,
        typer.Option("--X", help="X as .npy or .csv, one observation per row.", rich_help_panel=_PROBLEM),
    ] = None,
    y_file: Annotated[
        Path | None, typer.Option("--y", help="y as .npy or .csv.", rich_help_panel=_PROBLEM)
    ] = None,
    strengths: Annotated[
        list[float],
        typer.Option(
            "--lambda",
            help="Strength of a penalty. Repeatable.",
            show_default="1, 3, 10 and 30 % of the one that leaves no weight",
            rich_help_panel=_PROBLEM,
        ),
    ] = [],
    k: Annotated[
        int | None,
        typer.Option("--k", help="Weights kept.", show_default="a tenth", rich_help_panel=_PROBLEM),
    ] = None,
    step: Annotated[
        float | None,
        typer.Option(
            help="Step size.", show_default="1 / Lipschitz constant of the gradient", rich_help_panel=_PROBLEM
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Number of steps.", show_default="1000", rich_help_panel=_PROBLEM),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("-o", "--output-dir", help="Folder for figures and results.", rich_help_panel=OUTPUT),
    ] = Path("runs/sparse-regression"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Gradient descent, iterative pruning, L1 subgradient, proximal gradient, FISTA and trimmed L1 side by side.

    Without a problem of your own: the published series, every figure beside the published one. Needs no torch.
    """
    from modelpress.toolkit.commands.study.sparse_regression import study_own, study_reference

    if x_file is None and y_file is None:
        if strengths or k is not None or step is not None or steps is not None:
            raise InputError("--lambda, --k, --step and --steps are for your own problem: give --X and --y")
        record = study_reference(output, overwrite=overwrite)
    elif x_file is None or y_file is None:
        raise InputError("--X and --y belong together: give both files")
    else:
        record = study_own(
            x_file, y_file, output, strengths=strengths, k=k, step=step, steps=steps, overwrite=overwrite
        )
    emit_json(record, as_json=as_json)


@study_app.command("lasso-speed")
def lasso_speed(
    samples: Annotated[int, typer.Option(min=2, help="Rows of X.", rich_help_panel=MEASUREMENT)] = 2000,
    features: Annotated[int, typer.Option(min=2, help="Columns of X.", rich_help_panel=MEASUREMENT)] = 10_000,
    fractions: Annotated[
        list[float],
        typer.Option(
            "--lambda",
            min=1e-4,
            max=0.999,
            help="Penalty, relative to the one that leaves no weight. Repeatable.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = [0.1, 0.05, 0.02, 0.01],
    rounds: Annotated[
        int, typer.Option(min=1, help="How often the solvers take turns.", rich_help_panel=MEASUREMENT)
    ] = 3,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the results here.", rich_help_panel=OUTPUT)
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Our lasso solvers beside scikit-learn's coordinate descent, to the same duality gap."""
    from modelpress.toolkit.commands.study import sparse_regression as study_commands

    record = study_commands.lasso_speed(
        samples=samples,
        features=features,
        fractions=fractions,
        rounds=rounds,
        output=output,
        overwrite=overwrite,
    )
    emit_json(record, as_json=as_json)


Rows = Annotated[
    str,
    typer.Option(
        "--rows",
        help="Names or patterns of rows, or kinds of them (post-training, reference, improved, all), with commas.",
        rich_help_panel=RECIPE,
    ),
]
RowEpochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        min=1,
        help="Epochs of every row that is trained; schedules shrink or grow in proportion.",
        show_default="20, as published",
        rich_help_panel=RECIPE,
    ),
]
Dense = Annotated[
    Path | None,
    typer.Option(
        help="The trained network (.pt state dict or .safetensors).",
        show_default="the recipe's",
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
_STUDIES = Path("runs/studies")


_NETWORK_STUDIES: dict[Literal["prune", "quantize"], str] = {
    "prune": "Pruning a trained network: the published experiments, and our recipe, each beside the published figure.",
    "quantize": "Quantizing a trained network: the published experiments, and our recipes, each beside the "
    "published figure.",
}
_WHAT_COUNTS = (
    "Of the recipe only data, model, seed and run count; the rows bring everything else. Stop it any time: the same "
    "command goes on."
)


def _add_network_study(study: Literal["prune", "quantize"], what: str) -> None:
    @study_app.command(study, help=f"{what}\n\n{_WHAT_COUNTS}")
    def network_study(
        rows: Rows = "all",
        config: Config = None,
        checkpoint: Dense = None,
        data_dir: DataDir = None,
        download: Download = False,
        epochs: RowEpochs = None,
        seed: Seed = None,
        device: DeviceName = None,
        bf16: Bf16 = None,
        output: StudyFolder = _STUDIES,
        overwrite: StartAgain = False,
        as_json: AsJson = False,
    ) -> None:
        options = {"model.checkpoint": checkpoint, **common_keys(data_dir, download, seed, device, bf16)}
        base = merged_recipe(config, [], options)
        need_torch()
        from modelpress.toolkit.commands.study.network import run_network_study

        wanted = [text.strip() for text in rows.split(",") if text.strip()] or ["all"]
        record = run_network_study(study, wanted, base, output, epochs=epochs, overwrite=overwrite)
        emit_json(record, as_json=as_json)


for _study, _what in _NETWORK_STUDIES.items():
    _add_network_study(_study, _what)
