"""The `sensitivity` command."""

from pathlib import Path
from typing import Annotated

import typer

from modelpress.toolkit.byte_sizes import parse_size
from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import MEASUREMENT, AsJson, NetworkFile, Overwrite, output_file
from modelpress.toolkit.commands.recipe_options import (
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
)
from modelpress.toolkit.commands.requirements import need_torch

EXAMPLE = """
modelpress sensitivity pruned.safetensors -o sensitivity.json
modelpress sensitivity pruned.safetensors --bits 2,4,8 --budget 60kB -o sensitivity.json
"""


def command(
    network: NetworkFile,
    config: Config = None,
    map_names: MapNames = None,
    data: RecipeData = None,
    data_dir: DataDir = None,
    download: Download = False,
    bits: Annotated[
        str, typer.Option(metavar="N,N,...", help="Code widths, 2 to 8.", rich_help_panel=MEASUREMENT)
    ] = "2,3,4,5,6,8",
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Of the whole artifact, in bytes, or as in 60kB.",
            show_default="what 4 bits in every layer take",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    n_images: Annotated[
        int,
        typer.Option(
            "--images", min=1, help="Held-out images to measure on, at most.", rich_help_panel=MEASUREMENT
        ),
    ] = 2000,
    settings: Settings = [],
    seed: Seed = None,
    device: DeviceName = None,
    output: Path = output_file("JSON file.", "sensitivity.json"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Measure what each layer loses in each bit width, and propose widths that keep a budget of bytes.

    One layer at a time is quantized, without training, and the loss measured on held-out training images. The
    proposal is packed and measured beside uniform widths, and printed as lines for the recipe.
    """
    recipe = merged_recipe(
        config,
        settings,
        {
            "model.checkpoint": network,
            "model.map_names": map_names,
            **common_keys(data, data_dir, download, seed, device, None),
        },
    )
    need_torch()
    from modelpress.toolkit.commands.console import NOTES, TerminalProgress
    from modelpress.toolkit.commands.stages.sensitivity_tables import show_sensitivity
    from modelpress.toolkit.output_folder import check_output_file, write_json
    from modelpress.toolkit.studies.sensitivity.study import (
        Question,
        measure_sensitivity,
        parse_bits,
    )

    question = Question(parse_bits(bits), None if budget is None else parse_size(budget), n_images)
    check_output_file(output, overwrite=overwrite)
    record = measure_sensitivity(recipe, question, progress=TerminalProgress())
    write_json(output, record)
    NOTES.print(f"{output}: {len(record['layers'])} layers, {len(record['bits'])} widths", markup=False)
    answer(record, lambda: show_sensitivity(record), as_json=as_json)
