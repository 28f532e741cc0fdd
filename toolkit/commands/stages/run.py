"""The `run` command: the whole chain by a recipe."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import DATA, OUTPUT, AsJson, Overwrite, Resume, Wide
from modelpress.toolkit.commands.recipe_options import (
    Bf16,
    Config,
    DataDir,
    DeviceName,
    Download,
    FinetuneEpochs,
    MapNames,
    RecipeData,
    Seed,
    Settings,
    common_keys,
    merged_recipe,
    recipe_option,
)
from modelpress.toolkit.commands.requirements import need_torch
from modelpress.toolkit.commands.saying import say, say_line

if TYPE_CHECKING:
    from modelpress.benchmarks.records import Results

EXAMPLE = """
modelpress run
modelpress run -c resnet20-cifar10-s70-w4 --data-dir cifar10 --checkpoint resnet20.pt -o runs/s70-w4
modelpress run -c resnet20-cifar10 --data-dir cifar10 --checkpoint resnet20.pt --epochs 0 -o runs/quick
"""
_FILES = (
    ("model.press", "artifact"),
    ("model-*.onnx", "ONNX"),
    ("report.html", "report"),
    ("results.json", "results"),
)


def command(
    config: Config = None,
    checkpoint: Annotated[
        Path | None,
        recipe_option(
            "model.checkpoint", "--checkpoint", more="A .pt state dict or .safetensors.", panel=DATA
        ),
    ] = None,
    map_names: MapNames = None,
    data: RecipeData = None,
    data_dir: DataDir = None,
    download: Download = False,
    epochs: FinetuneEpochs = None,
    settings: Settings = [],
    seed: Seed = None,
    device: DeviceName = None,
    bf16: Bf16 = None,
    output: Annotated[
        Path, typer.Option("-o", "--output-dir", help="Folder for all results.", rich_help_panel=OUTPUT)
    ] = Path("runs/modelpress"),
    overwrite: Overwrite = False,
    resume: Resume = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.", rich_help_panel=OUTPUT)
    ] = False,
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """Load, prune, quantize, finetune, pack, emit ONNX, measure, report.

    Without options: a ResNet-20 trained on the handwritten digits inside scikit-learn. No download, minutes on a CPU.
    """
    recipe = merged_recipe(
        config,
        settings,
        {
            "model.checkpoint": checkpoint,
            "model.map_names": map_names,
            **common_keys(data, data_dir, download, seed, device, bf16),
        },
        epochs=epochs,
    )
    if dry_run:
        from modelpress.toolkit.recipe import dump_recipe

        say(dump_recipe(recipe), end="")
        return

    need_torch(together=True)
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.compression.run import run_recipe

    results = run_recipe(recipe, output, overwrite=overwrite, resume=resume, progress=TerminalProgress())
    if results is not None:  # this process did not only help
        facts = results.model_dump(mode="json")
        answer(facts, lambda: _show_results(results, output, wide=wide), as_json=as_json)


def _show_results(results: "Results", folder: Path, *, wide: bool = False) -> None:
    """A table of all files, and where they are."""
    from modelpress.toolkit.commands.bench.tables import show_files

    show_files(results, wide=wide)
    for pattern, what in _FILES:
        for path in sorted(folder.glob(pattern)):
            say_line(f"{what:>9}  {path}")
