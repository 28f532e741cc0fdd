"""The `pack` command."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from modelpress.export.choices import CALIBRATION_INPUTS, DEFAULT_TIMEOUT_S, Effort
from modelpress.export.post_training.packing import WeightOptions
from modelpress.toolkit.commands.answers import answer, answer_line
from modelpress.toolkit.commands.options import AsJson, Overwrite, Timeout, output_file
from modelpress.toolkit.commands.recipe_options import (
    Config,
    MapNames,
    PackEffort,
    Settings,
    fraction_option,
    merged_recipe,
    recipe_option,
)
from modelpress.toolkit.commands.requirements import need_torch
from modelpress.toolkit.commands.stages.price_options import (
    Frontier,
    Inputs,
    Loss,
    NInputs,
    PriceWords,
    Rate,
    Target,
)

EXAMPLE = """
modelpress pack quantized.safetensors -o model.press
modelpress pack any.onnx --bits 4 --sparsity 0.5 -o any.press
modelpress pack any.onnx --lossless --effort max -o any.press
modelpress pack any.onnx --calibration-data inputs.npy --target 90kB -o any.press
"""
FOREIGN = "ONNX models"
_WITHOUT_OPTIONS = WeightOptions()
_QUANTIZATION = _WITHOUT_OPTIONS.quantization


def command(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="An ONNX model (.onnx) from anywhere, or a network file of an earlier stage.",
            show_default=False,
        ),
    ],
    config: Config = None,
    settings: Settings = [],
    map_names: MapNames = None,
    bits: Annotated[
        int | None, recipe_option("quantize.bits", "--bits", default=str(_QUANTIZATION.bits), panel=FOREIGN)
    ] = None,
    symmetric: Annotated[
        bool | None,
        recipe_option(
            "quantize.symmetric",
            "--symmetric/--asymmetric",
            default="symmetric in 8 bits, which int8 takes as they are, else asymmetric",
            panel=FOREIGN,
        ),
    ] = None,
    per_channel: Annotated[
        bool | None,
        recipe_option(
            "quantize.per_channel",
            "--per-channel/--per-tensor",
            default="per-channel" if _WITHOUT_OPTIONS.per_channel else "per-tensor",
            panel=FOREIGN,
        ),
    ] = None,
    sparsity: Annotated[
        float | None,
        fraction_option(
            "prune.sparsity",
            "--sparsity",
            about="Fraction of each weight tensor set to zero first.",
            default=f"{_QUANTIZATION.sparsity:g}",
            panel=FOREIGN,
        ),
    ] = None,
    min_elements: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Tensors with fewer elements stay as they are.",
            show_default=str(_WITHOUT_OPTIONS.min_elements),
            rich_help_panel=FOREIGN,
        ),
    ] = None,
    lossless: Annotated[
        bool | None,
        typer.Option(
            "--lossless",
            help="Quantize nothing; every tensor comes back byte for byte.",
            rich_help_panel=FOREIGN,
        ),
    ] = None,
    allow_external_data: Annotated[
        bool | None,
        typer.Option(
            "--allow-external-data",
            help="Follow tensors into other files of the model's folder.",
            rich_help_panel=FOREIGN,
        ),
    ] = None,
    remove_dead_channels: Annotated[
        bool | None,
        typer.Option(
            "--remove-dead-channels",
            help="Take out channels whose weights are zero, with all that hangs on them.",
            rich_help_panel=FOREIGN,
        ),
    ] = None,
    rate: Rate = None,
    target: Target = None,
    loss: Loss = None,
    frontier: Frontier = None,
    calibration_data: Inputs = None,
    calibration_images: NInputs = CALIBRATION_INPUTS,
    effort: PackEffort = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    output: Path = output_file("Artifact.", "model.press"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write the artifact of a network, or of any ONNX model. The latter needs no torch.

    A network file: batch norm is folded and the codes it was trained with are encoded. An ONNX model: its weights
    are quantized after training, all else is stored as it is; [b]--lossless[/] quantizes nothing. With
    [b]--rate[/], [b]--target[/] or [b]--loss[/] and some inputs, the weights of either are rounded to what costs least
    in error and bytes together.
    """
    from modelpress.toolkit.commands.stages.packing import (
        check_options_of_kind,
        is_onnx,
        pack_options,
        refuse_with_price,
    )
    from modelpress.toolkit.commands.stages.price_options import pack_priced
    from modelpress.toolkit.output_folder import check_output_file

    quantization: dict[str, Any] = {
        "lossless": lossless,
        "bits": bits,
        "symmetric": symmetric,
        "per_channel": per_channel,
        "sparsity": sparsity,
        "min_elements": min_elements,
    }
    price = PriceWords(rate, target, loss, calibration_data, calibration_images, min_elements, frontier)
    if price.given:
        refuse_with_price({**quantization, "remove_dead_channels": remove_dead_channels})
        quantization = {}
    check_options_of_kind(
        file,
        recipe={"config": config, "set": settings or None, "map_names": map_names},
        foreign={
            **quantization,
            "allow_external_data": allow_external_data,
            "remove_dead_channels": remove_dead_channels,
        },
    )
    if is_onnx(file):
        if price.given:
            _price_onnx(
                file,
                output,
                price,
                bool(allow_external_data),
                effort or "default",
                overwrite=overwrite,
                as_json=as_json,
            )
            return
        options = pack_options(**quantization, remove_dead_channels=remove_dead_channels)
        check_output_file(output, overwrite=overwrite)
        _pack_onnx(file, output, options, bool(allow_external_data), effort or "default", as_json=as_json)
        return

    recipe = merged_recipe(config, settings, {"pack.effort": effort, "model.map_names": map_names})
    need_torch()
    from modelpress.export.files.kinds import check_ending
    from modelpress.export.press.writing import write_artifact
    from modelpress.toolkit.commands.console import NOTES
    from modelpress.toolkit.compression.freeze import freeze_state
    from modelpress.toolkit.compression.network_file import load_network

    check_ending(output, "an artifact", (".press",))
    check_output_file(output, overwrite=overwrite)
    loaded = load_network(file, recipe.model)
    for note in loaded.notes:
        NOTES.print(note, markup=False, soft_wrap=True)

    frozen = freeze_state(loaded, note=partial(NOTES.print, markup=False, soft_wrap=True))
    if price.given:
        pack_priced(frozen, file, output, price, recipe.pack.effort, overwrite=overwrite, as_json=as_json)
        return
    size = write_artifact(output, frozen, effort=recipe.pack.effort)
    answer_line(
        f"{output}: {size:,} bytes, decodes bit-exactly",
        {"output": str(output), "size_bytes": size},
        as_json=as_json,
    )


def _pack_onnx(
    file: Path, output: Path, options: WeightOptions, external: bool, effort: Effort, *, as_json: bool
) -> None:
    from modelpress.export.isolation.foreign import start_early

    start_early("modelpress.export.graphs.check")
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.commands.stages.packing import show_packing
    from modelpress.toolkit.model_files.packing import pack_onnx

    report = pack_onnx(
        file, output, options, allow_external_data=external, effort=effort, progress=TerminalProgress()
    )
    answer(asdict(report), lambda: show_packing(report), as_json=as_json)


def _price_onnx(
    file: Path,
    output: Path,
    price: PriceWords,
    external: bool,
    effort: Effort,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    from modelpress.toolkit.commands.stages.price_options import pack_priced
    from modelpress.toolkit.model_files.pricing import onnx_in_float
    from modelpress.toolkit.output_folder import check_output_file

    price.request()  # refuses what cannot be before anything is read
    if price.frontier is None:
        check_output_file(output, overwrite=overwrite)
    model = onnx_in_float(file, allow_external_data=external)
    pack_priced(model, file, output, price, effort, overwrite=overwrite, as_json=as_json)
