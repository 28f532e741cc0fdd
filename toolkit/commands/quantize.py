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
            "quantize.bits": bits,
            **common_keys(data_dir, download, seed, device, bf16),
        },
        epochs=epochs,
    )
    need_torch()
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.commands.trained import answer_training, images_and_device
    from modelpress.toolkit.compression.chain import quantize_and_finetune
    from modelpress.toolkit.compression.stages import starting_network, teacher_for
    from modelpress.toolkit.output_folder import check_network_output

    check_network_output(output, overwrite=overwrite, resume=resume)
    images, place = images_and_device(recipe)
    state = starting_network(recipe, images, place)

    trained = quantize_and_finetune(
        state,
        images,
        recipe,
        place,
        teacher=teacher_for(recipe, state, place),
        output=output,
        resume=resume,
        progress=TerminalProgress(),
        watch=lambda name, state: None,
    )
    answer_training(trained, images, place, "finetune", output, as_json=as_json)
