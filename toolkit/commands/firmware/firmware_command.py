"""The `firmware` command."""

from pathlib import Path
from typing import Annotated, Any

import typer

from modelpress.export.choices import DEFAULT_TIMEOUT_S, Arithmetic, Optimise
from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.flavour_options import (
    DEFAULTS,
    CalibrationData,
    CalibrationImages,
    CalibrationRule,
    Percentile,
    flavour_request,
)
from modelpress.toolkit.commands.options import OUTPUT, AsJson, MaxDecoded, Overwrite, PressFile, Timeout

EXAMPLE = """
modelpress firmware model.press --calibration-data inputs.npy -o firmware
"""


def command(
    file: PressFile,
    calibration_data: CalibrationData = None,
    calibration_images: CalibrationImages = DEFAULTS.images,
    calibration_method: CalibrationRule = DEFAULTS.method,
    percentile: Percentile = DEFAULTS.percentile,
    optimise: Annotated[
        Optimise,
        typer.Option(
            "--optimise",
            help="[b]size[/]: Huffman codes where they are smaller. [b]speed[/]: numbers of a fixed width, which "
            "take fewer instructions.",
        ),
    ] = Optimise.SIZE,
    arithmetic: Annotated[
        Arithmetic,
        typer.Option(
            "--arithmetic",
            help="How sums become bytes. [b]float[/]: float32, bit for bit as ONNX Runtime's int8. [b]integer[/]: "
            "for cores without floating point.",
        ),
    ] = Arithmetic.FLOAT,
    vectors: Annotated[
        int,
        typer.Option(
            "--vectors",
            min=1,
            max=1000,
            help="Test vectors: inputs of the calibration data.",
            rich_help_panel=OUTPUT,
        ),
    ] = 4,
    max_decoded: MaxDecoded = 2,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder to write.", rich_help_panel=OUTPUT)
    ] = Path("firmware"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write the network in C99 for microcontrollers: weights coded in flash, zeros skipped. Needs no torch."""
    from modelpress.export.firmware.folder import check_target
    from modelpress.export.firmware.generating import FirmwareOptions
    from modelpress.export.press.reading import open_artifact
    from modelpress.toolkit.model_files.firmware_writing import FirmwareRequest, write_firmware

    calibration = flavour_request(
        "int8",
        calibration_data,
        n_images=calibration_images,
        method=calibration_method,
        percentile=percentile,
        reduce_range=False,
    )
    check_target(output, overwrite=overwrite)
    request = FirmwareRequest(calibration, FirmwareOptions(optimise=optimise, arithmetic=arithmetic), vectors)
    with open_artifact(file, max_decoded_bytes=max_decoded << 30) as artifact:
        facts = write_firmware(output, artifact.lazy_model(), request)

    answer(facts, lambda: _show(facts), as_json=as_json)


def _show(facts: dict[str, Any]) -> None:
    """What each layer takes, and the sums."""
    from modelpress.toolkit.commands.console import print_table
    from modelpress.toolkit.commands.saying import say_line

    rows = [
        {
            "name": layer["name"],
            "operator": layer["operator"],
            "flash": f"{layer['codes'] + layer['tables'] + layer['biases']:,}",
            "memory": f"{layer['memory']:,}",
            "run": f"{layer['run']:,}",
        }
        for layer in facts["layers"]
    ]
    headings = {
        "name": "layer",
        "operator": "operator",
        "flash": "flash, bytes",
        "memory": "activations, bytes",
        "run": "multiplications",
    }
    print_table("", rows, headings, text=("name", "operator"))
    say_line(
        f"{facts['output']}/: {facts['weight_bytes']:,} bytes of weights in flash, an arena of "
        f"{facts['arena_bytes']:,} bytes, {facts['products_run']:,} of {facts['products']:,} multiplications run"
    )
