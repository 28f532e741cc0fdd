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
    Seed,
    Settings,
    common_keys,
    fraction_option,
    merged_recipe,
    recipe_option,
)
from modelpress.toolkit.commands.requirements import need_torch
from modelpress.toolkit.recipe import Recipe

EXAMPLE = """
modelpress prune dense.safetensors --sparsity 0.7 -o pruned.safetensors
modelpress prune dense.safetensors --set prune.method=trimmed-l1 --epochs 6 -o pruned.safetensors
"""


def command(
    network: NetworkFile,
    config: Config = None,
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

    The methods proximal-l1, trimmed-l1 and group-lasso train, and so need the images; the others read no data.
    """
    recipe = merged_recipe(
        config,
        settings,
        {
            "model.checkpoint": network,
            "prune.sparsity": sparsity,
            "sparsify.epochs": epochs,
            **common_keys(data_dir, download, seed, device, bf16),
        },
    )
    need_torch()
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.commands.trained import images_and_device
    from modelpress.toolkit.compression.network_file import load_network, save_network
    from modelpress.toolkit.compression.stages import (
        prune_stage,
        removed_weights,
        sparsify_stage,
        starting_network,
        teacher_for,
    )
    from modelpress.toolkit.output_folder import check_network_output, state_path

    _check_method(recipe, trains=epochs is not None or resume)
    check_network_output(output, overwrite=overwrite, resume=resume)
    if recipe.prune.by_penalty:
        images, place = images_and_device(recipe)
        state = starting_network(recipe, images, place)
        pruned = sparsify_stage(
            state,
            images,
            recipe,
            place,
            TerminalProgress(),
            teacher=teacher_for(recipe, state, place),
            state_path=state_path(output),
            resume=resume,
        )
    else:
        pruned = prune_stage(load_network(network, recipe.model), recipe.prune)
    save_network(output, pruned)
    state_path(output).unlink(missing_ok=True)

    facts = {
        "output": str(output),
        **pruned.history["prune"],
        **({"epochs": pruned.history["sparsify"]} if recipe.prune.by_penalty else {}),
    }
    answer_line(f"{output}: {removed_weights(pruned)}", facts, as_json=as_json)


def _check_method(recipe: Recipe, *, trains: bool) -> None:
    """Refuse what this command does not do by the recipe's method.

    Raises:
        CommandLineError: It prunes while it finetunes, or options of a training are given to a method without one.
    """
    if not recipe.prune.by_penalty and trains:
        raise CommandLineError(
            f"--epochs and --resume are for pruning by a penalty; prune.method is {recipe.prune.method}"
        )
    if recipe.prune.scheduled:
        raise CommandLineError(
            "this recipe removes weights while it finetunes: give the dense network to `quantize` or `run`, or set "
            "prune.schedule to one-shot"
        )
