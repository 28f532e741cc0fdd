"""The options that several commands share: files in and out, and what is printed. Nothing here reads a recipe."""

from pathlib import Path
from typing import Annotated, Any

import typer

from modelpress.toolkit.data.names import DataSetName

RECIPE, OUTPUT, DATA, MEASUREMENT = "Recipe", "Output", "Data", "Measurement"

Wide = Annotated[
    bool,
    typer.Option(
        "--wide",
        help="All columns of the tables, whatever the width of the terminal.",
        rich_help_panel=OUTPUT,
    ),
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

DataSet = Annotated[
    DataSetName | None,
    typer.Option(
        "--dataset",
        help="Test images to measure on.",
        show_default="what the model was trained on",
        rich_help_panel=DATA,
    ),
]
_OWN_DATA = (
    "Your own examples: a folder of images (one folder per class), a .csv of paths and labels, an .npz of arrays, "
    "file.py:function that gives a torch Dataset, or a .yaml with the sections data and task of a recipe."
)

OwnData = Annotated[
    str | None,
    typer.Option("--data", metavar="PATH", help=_OWN_DATA, show_default=False, rich_help_panel=DATA),
]
DataSettings = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Of --data: a key of a recipe's sections data and task, as in data.resize=[224,224] or task=regression. "
        "Repeatable.",
        rich_help_panel=DATA,
    ),
]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Folder of CIFAR-10 (binary version, or torchvision's), where that is measured on.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
MaxDecoded = Annotated[
    int,
    typer.Option(
        "--max-decoded",
        min=1,
        metavar="GB",
        help="Refuse files whose tensors are larger in memory, in GiB: a small file may claim to be a huge one.",
    ),
]
Timeout = Annotated[
    int,
    typer.Option(
        "--timeout",
        min=1,
        metavar="SECONDS",
        help="Stop each check or run of a model after this time: a small file may never end.",
    ),
]

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that are already there.", rich_help_panel=OUTPUT)
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Continue a stopped run with the same options.", rich_help_panel=OUTPUT),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json", help="Print the result as JSON, and nothing else, on stdout.", rich_help_panel=OUTPUT
    ),
]
JsonFile = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Write JSON here.", show_default=False, rich_help_panel=OUTPUT),
]
Rounds = Annotated[
    int, typer.Option(min=1, help="How often contestants take turns.", rich_help_panel=MEASUREMENT)
]


def output_file(help_text: str, default: str) -> Any:
    """The option of a command that writes one file."""
    return typer.Option(default, "-o", "--output", help=help_text, rich_help_panel=OUTPUT)
