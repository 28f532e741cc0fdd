"""The `train` command."""

from pathlib import Path
from typing import Annotated

from modelpress.toolkit.commands.options import AsJson, Overwrite, Resume, output_file
from modelpress.toolkit.commands.recipe_options import (
    Bf16,
    Config,
    DataDir,
    DeviceName,
    Download,
    MapNames,
    RecipeData,
    Seed,
    Settings,
    common_keys,
    merged_recipe,
    recipe_option,
)
from modelpress.toolkit.commands.requirements import need_torch

EXAMPLE = """
modelpress train -o dense.safetensors
modelpress train -c resnet20-cifar10 --data-dir cifar10 --epochs 100 -o dense.safetensors
"""


def command(
    config: Config = None,
    map_names: MapNames = None,
    data: RecipeData = None,
    data_dir: DataDir = None,
    download: Download = False,
    epochs: Annotated[
        int | None, recipe_option("train.epochs", "--epochs", more="Of the dense training.")
    ] = None,
    settings: Settings = [],
    seed: Seed = None,
    device: DeviceName = None,
    bf16: Bf16 = None,
    output: Path = output_file("Network file.", "dense.safetensors"),
    overwrite: Overwrite = False,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Train the recipe's dense network."""
    recipe = merged_recipe(
        config,
        settings,
        {
            "model.map_names": map_names,
            "train.epochs": epochs,
            **common_keys(data, data_dir, download, seed, device, bf16),
        },
    )
    need_torch()
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.commands.stages.trained import answer_training
    from modelpress.toolkit.compression.run import train_network

    trained = train_network(recipe, output, overwrite=overwrite, resume=resume, progress=TerminalProgress())
    answer_training(trained, output, as_json=as_json)
