"""What several commands share: options (names, help and where `--help` lists them) and JSON on stdout."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from modelpress.export.errors import InputError

if TYPE_CHECKING:
    from modelpress.benchmarks.records import Results
    from modelpress.toolkit.commands.onnx_writing import FlavourRequest
    from modelpress.toolkit.recipe import Recipe

RECIPE, OUTPUT, DATA, MEASUREMENT = "Recipe", "Output", "Data", "Measurement"
FOREIGN = "ONNX models"
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
MapNames = Annotated[
    bool | None,
    recipe_option("Match layers of other names by their shapes and order.", "--map-names/--no-map-names"),
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
MaxDecoded = Annotated[
    int,
    typer.Option(
        "--max-decoded",
        min=1,
        metavar="GB",
        help="Refuse files whose tensors are larger in memory, in GiB: a small file may claim to be a huge one.",
    ),
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
ModelOrNetwork = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="An ONNX model (.onnx) from anywhere, or a network file of an earlier stage.",
        show_default=False,
    ),
]
Effort = Literal["fast", "default", "max"]
PackEffort = Annotated[
    Effort | None,
    typer.Option(
        "--effort",
        help="How hard to look for the smallest file; [b]max[/] is slower to load.",
        show_default="default, or the recipe's",
        rich_help_panel=OUTPUT,
    ),
]
CALIBRATION = "Calibration of int8"
Flavour = Annotated[
    str,
    typer.Option(
        help="[b]float[/]: decoded weights. [b]weight-only[/], [b]sparse[/]: packed codes that the runtime expands "
        "at load. [b]int8[/], [b]int8-sparse[/]: integer arithmetic.",
    ),
]
CalibrationData = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Inputs to measure the ranges of activations on: an .npy file (float32 inputs, or uint8 images) or the "
        "folder of CIFAR-10.",
        rich_help_panel=CALIBRATION,
    ),
]
CalibrationImages = Annotated[
    int, typer.Option(min=1, metavar="N", help="How many of them, at most.", rich_help_panel=CALIBRATION)
]
CalibrationRule = Annotated[
    Literal["min-max", "percentile", "mse", "entropy"],
    typer.Option("--calibration-method", help="How ranges are chosen.", rich_help_panel=CALIBRATION),
]
Percentile = Annotated[
    float,
    typer.Option(
        min=50, max=100, help="Of the values each bound covers, for percentile.", rich_help_panel=CALIBRATION
    ),
]
ReduceRange = Annotated[
    bool,
    typer.Option(
        "--reduce-range",
        help="Weights of 7 bits, for x86 processors without VNNI.",
        rich_help_panel=CALIBRATION,
    ),
]


def flavour_request(
    flavour: str,
    data: Path | None,
    *,
    n_images: int,
    method: str,
    percentile: float,
    reduce_range: bool,
) -> "FlavourRequest":
    """The options above as one value."""
    from modelpress.export.post_training.calibration import CalibrationMethod, CalibrationOptions
    from modelpress.toolkit.commands.onnx_writing import FlavourRequest

    options = CalibrationOptions(method=CalibrationMethod(method), percentile=percentile)
    return FlavourRequest(flavour, data, n_images, options, reduce_range)


def foreign_option(
    help_text: str,
    *names: str,
    default: str | bool = False,
    min: float | None = None,
    max: float | None = None,
) -> Any:
    """An option of `pack` that is for ONNX models only."""
    return typer.Option(
        *names, min=min, max=max, help=help_text, show_default=default, rich_help_panel=FOREIGN
    )


PackBits = Annotated[
    int | None, foreign_option("Code width of the weights in bits.", min=2, max=8, default="8")
]
PackSymmetric = Annotated[
    bool | None,
    foreign_option(
        "Grid around zero, or from minimum to maximum.", "--symmetric/--asymmetric", default="asymmetric"
    ),
]
PackPerChannel = Annotated[
    bool | None,
    foreign_option(
        "One scale per output channel, or per tensor.", "--per-channel/--per-tensor", default="per-channel"
    ),
]
PackSparsity = Annotated[
    float | None,
    foreign_option("Fraction of each weight tensor set to zero first.", min=0, max=1, default="0"),
]
PackMinElements = Annotated[
    int | None, foreign_option("Tensors with fewer elements stay as they are.", min=0, default="1024")
]
Lossless = Annotated[
    bool | None, foreign_option("Quantize nothing; every tensor comes back byte for byte.", "--lossless")
]
AllowExternalData = Annotated[
    bool | None,
    foreign_option("Follow tensors into other files of the model's folder.", "--allow-external-data"),
]


def output_file(help_text: str, default: str) -> Any:
    """The option of a command that writes one file."""
    return typer.Option(default, "-o", "--output", help=help_text, rich_help_panel=OUTPUT)


def emit_json(value: Any, *, as_json: bool) -> None:
    """Print a result for programs, if they asked for it."""
    if as_json:
        typer.echo(json.dumps(value, indent=2))


def show_results(results: "Results", folder: Path | None, *, as_json: bool) -> None:
    """A table of all files, where they are, and JSON on stdout where asked for."""
    from modelpress.benchmarks.report.page import file_rows, table_headings
    from modelpress.toolkit.commands.console import print_table

    print_table("", file_rows(results), table_headings(results))
    if folder is not None:
        for pattern, what in (
            ("model.press", "artifact"),
            ("model-*.onnx", "ONNX"),
            ("report.html", "report"),
            ("results.json", "results"),
        ):
            for path in sorted(folder.glob(pattern)):
                typer.echo(f"{what:>9}  {path}", err=True)
    emit_json(results.model_dump(mode="json"), as_json=as_json)


def common_keys(
    data_dir: Path | None, download: bool, seed: int | None, device: str | None, bf16: bool | None
) -> dict[str, Any]:
    """Recipe keys of the options that every training command has."""
    return {
        "data.dir": data_dir,
        "data.download": download or None,
        "seed": seed,
        "run.device": device,
        "run.bf16": bf16,
    }


def merged_recipe(config: Path | None, settings: list[str], options: dict[str, Any]) -> "Recipe":
    """The recipe file, then `--set`, then the options that were given."""
    from modelpress.toolkit.recipe import load_recipe, parse_setting

    given = {key: str(v) if isinstance(v, Path) else v for key, v in options.items() if v is not None}
    return load_recipe(config, {**dict(map(parse_setting, settings)), **given})


def need_torch(*, together: bool = False) -> None:
    """Raise InputError where it is not installed, or where torchrun started a command that works alone."""
    if not together and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "several processes can share the work of `run` only: start this command without torchrun"
        )
    try:
        import torch  # noqa: F401 - its presence is the question
    except ImportError as error:
        raise InputError(
            "this command trains or reads PyTorch checkpoints: pip install 'modelpress[train]'"
        ) from error
