"""The `quantize` command."""

from pathlib import Path
from typing import Annotated

from modelpress.toolkit.commands.options import AsJson, NetworkFile, Overwrite, Resume, output_file
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

EXAMPLE = """
modelpress quantize pruned.safetensors --bits 4 -o quantized.safetensors
modelpress quantize pruned.safetensors -c resnet20-cifar10 --data-dir cifar10 --epochs 5 -o quantized.safetensors
"""


def command(
    network: NetworkFile,
    config: Config = None,
    map_names: MapNames = None,
    data: RecipeData = None,
    data_dir: DataDir = None,
    download: Download = False,
    bits: Annotated[int | None, recipe_option("quantize.bits", "--bits")] = None,
    epochs: FinetuneEpochs = None,
    settings: Settings = [],
    seed: Seed = None,
    device: DeviceName = None,
    bf16: Bf16 = None,
    output: Path = output_file("Network file.", "quantized.safetensors"),
    overwrite: Overwrite = False,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Quantize a network and finetune it on its grid, zeros held."""
    recipe = merged_recipe(
        config,
        settings,
        {
            "model.checkpoint": network,
            "model.map_names": map_names,
            "quantize.bits": bits,
            **common_keys(data, data_dir, download, seed, device, bf16),
        },
        epochs=epochs,
    )
    need_torch()
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.commands.stages.trained import answer_training
    from modelpress.toolkit.compression.run import quantize_network

    quantized = quantize_network(
        recipe, output, overwrite=overwrite, resume=resume, progress=TerminalProgress()
    )
    answer_training(quantized, output, as_json=as_json)
