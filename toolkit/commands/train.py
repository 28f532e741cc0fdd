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
        {"train.epochs": epochs, **common_keys(data_dir, download, seed, device, bf16)},
    )
    need_torch()
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.commands.trained import answer_training, images_and_device
    from modelpress.toolkit.compression.network_file import save_network
    from modelpress.toolkit.compression.stages import check_dense, starting_network, train_stage
    from modelpress.toolkit.output_folder import check_network_output, state_path

    check_network_output(output, overwrite=overwrite, resume=resume)
    images, place = images_and_device(recipe)
    state = starting_network(recipe, images, place)
    check_dense(state)

    trained = train_stage(
        state,
        images,
        recipe,
        place,
        TerminalProgress(),
        stage="train",
        state_path=state_path(output),
        resume=resume,
    )
    save_network(output, trained)
    answer_training(trained, images, place, "train", output, as_json=as_json)
