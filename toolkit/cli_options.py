"""What several commands share: options (names, help and where `--help` lists them) and JSON on stdout."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

RECIPE, OUTPUT, DATA, MEASUREMENT = "Recipe", "Output", "Data", "Measurement"
Config = Annotated[
    Path | None,
    typer.Option("-c", "--config", help="Recipe (YAML); without one, the defaults.", rich_help_panel=RECIPE),
]
Settings = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one key of the recipe, as in quantize.bits=6. Repeatable.",
        rich_help_panel=RECIPE,
    ),
]
RECIPES_OWN = "the recipe's"


def recipe_option(help_text: str, *names: str, min: float | None = None, max: float | None = None) -> Any:
    """An option that overrides a key of the recipe."""
    return typer.Option(
        *names, min=min, max=max, help=help_text, show_default=RECIPES_OWN, rich_help_panel=RECIPE
    )


FinetuneEpochs = Annotated[
    int | None, recipe_option("Epochs of the finetuning; 0 compresses without training.", min=0)
]
TrainEpochs = Annotated[int | None, recipe_option("Epochs of the dense training.", min=0)]
PenaltyEpochs = Annotated[int | None, recipe_option("Epochs of the training with a penalty.", min=0)]
Seed = Annotated[int | None, recipe_option("Seed of every random generator.", min=0)]
DeviceName = Annotated[str | None, recipe_option("auto (CUDA if present), cpu or cuda.", "--device")]
Bf16 = Annotated[
    bool | None, recipe_option("Train in bfloat16 where the device computes in it.", "--bf16/--no-bf16")
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder of CIFAR-10 (binary version, or torchvision's).",
        show_default=RECIPES_OWN,
        rich_help_panel=DATA,
    ),
]
Download = Annotated[
    bool,
    typer.Option("--download", help="Let torchvision fetch CIFAR-10 into --data-dir.", rich_help_panel=DATA),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that are already there.", rich_help_panel=OUTPUT)
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Continue a stopped run with the same options.", rich_help_panel=OUTPUT),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on stdout.", rich_help_panel=OUTPUT)
]
PressFile = Annotated[Path, typer.Argument(metavar="FILE", help="A .press artifact.", show_default=False)]
NetworkFile = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="A network file (.safetensors) of an earlier stage, or a PyTorch state dict (.pt, .pth).",
        show_default=False,
    ),
]


def output_file(help_text: str, default: str) -> Any:
    """The option of a command that writes one file."""
    return typer.Option(default, "-o", "--output", help=help_text, rich_help_panel=OUTPUT)


def emit_json(value: Any, *, as_json: bool) -> None:
    """Print a result for programs, if they asked for it."""
    if as_json:
        typer.echo(json.dumps(value, indent=2))
