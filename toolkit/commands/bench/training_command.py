"""The `bench training` command."""

from typing import Annotated

import typer

from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import MEASUREMENT, AsJson, JsonFile, Overwrite, Rounds
from modelpress.toolkit.commands.recipe_options import (
    Config,
    DataDir,
    DeviceName,
    Settings,
    merged_recipe,
)

EXAMPLE = """
modelpress bench training
modelpress bench training -c resnet20-cifar10 --data-dir cifar10 --device cuda -o training.json
"""


def command(
    config: Config = None,
    data_dir: DataDir = None,
    settings: Settings = [],
    device: DeviceName = None,
    batch: Annotated[int, typer.Option(min=1, help="Images per step.", rich_help_panel=MEASUREMENT)] = 256,
    images: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Training images per epoch.",
            show_default="5120 on a CPU, all on a GPU",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=0, help="Processes that load images for the plain loop.", rich_help_panel=MEASUREMENT
        ),
    ] = 2,
    rounds: Rounds = 5,
    output: JsonFile = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Images per second in training beside a plain PyTorch loop. In turn, on the same device.

    The recipe gives data, network and the options of SGD. Each measurement trains a fresh network in a process of its
    own for two epochs, of which the second counts; leave the machine alone meanwhile.
    """
    from modelpress.toolkit.commands.bench.codes import show_training
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.output_folder import check_output_file, write_json
    from modelpress.toolkit.studies.training_speed.rounds import measure_training

    if output is not None:
        check_output_file(output, overwrite=overwrite)

    facts = measure_training(
        merged_recipe(config, settings, {"data.dir": data_dir, "run.device": device}),
        batch=batch,
        images=images,
        workers=workers,
        rounds=rounds,
        progress=TerminalProgress(),
    )
    answer(facts, lambda: show_training(facts), as_json=as_json)
    if output is not None:
        write_json(output, facts)
