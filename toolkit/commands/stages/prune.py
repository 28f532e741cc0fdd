"""The `prune` command."""

from pathlib import Path
from typing import Annotated

from modelpress.export.errors import CommandLineError
from modelpress.toolkit.commands.answers import answer_line
from modelpress.toolkit.commands.options import AsJson, NetworkFile, Overwrite, Resume, output_file
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
    fraction_option,
    merged_recipe,
    recipe_option,
)
from modelpress.toolkit.commands.requirements import need_torch

EXAMPLE = """
modelpress prune dense.safetensors --sparsity 0.7 -o pruned.safetensors
modelpress prune dense.safetensors --set prune.method=trimmed-l1 --epochs 6 -o pruned.safetensors
"""


def command(
    network: NetworkFile,
    config: Config = None,
    map_names: MapNames = None,
    data: RecipeData = None,
    data_dir: DataDir = None,
    download: Download = False,
    sparsity: Annotated[float | None, fraction_option("prune.sparsity", "--sparsity")] = None,
    epochs: Annotated[
        int | None, recipe_option("sparsify.epochs", "--epochs", more="Of the training with a penalty.")
    ] = None,
    settings: Settings = [],
    seed: Seed = None,
    device: DeviceName = None,
    bf16: Bf16 = None,
    output: Path = output_file("Network file.", "pruned.safetensors"),
    overwrite: Overwrite = False,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Remove the weights closest to zero, at once or by a penalty while training.

    The methods proximal-l1, trimmed-l1, group-lasso and l1-subgradient train, and so need the images; the others read
    no data.
    """
    recipe = merged_recipe(
        config,
        settings,
        {
            "model.checkpoint": network,
            "model.map_names": map_names,
            "prune.sparsity": sparsity,
            "sparsify.epochs": epochs,
            **common_keys(data, data_dir, download, seed, device, bf16),
        },
    )
    need_torch()
    if not recipe.prune.by_penalty and (epochs is not None or resume):
        raise CommandLineError(
            f"--epochs and --resume are for pruning by a penalty; prune.method is {recipe.prune.method}"
        )
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.compression.pruning.removal import removed_weights
    from modelpress.toolkit.compression.run import prune_network

    pruned = prune_network(recipe, output, overwrite=overwrite, resume=resume, progress=TerminalProgress())

    facts = {
        "output": str(output),
        **pruned.state.history["prune"],
        **{key: value for key, value in pruned.state.history.get("shrink", {}).items() if key != "counts"},
        **({"epochs": pruned.epochs} if pruned.epochs else {}),
    }
    answer_line(f"{output}: {removed_weights(pruned.state)}", facts, as_json=as_json)
