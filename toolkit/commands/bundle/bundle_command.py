"""The `bundle` command."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from modelpress.export.choices import DEFAULT_TIMEOUT_S, INTEGER_FLAVOURS, ExitForm, FlavourName, Target
from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.flavour_options import (
    DEFAULTS,
    CalibrationData,
    CalibrationImages,
    CalibrationRule,
    Percentile,
    ReduceRange,
    flavour_request,
)
from modelpress.toolkit.commands.given_inputs import InputFiles, InputShapes, given_inputs
from modelpress.toolkit.commands.options import (
    DATA,
    OUTPUT,
    AsJson,
    DataFolder,
    DataSet,
    DataSettings,
    MaxDecoded,
    Overwrite,
    OwnData,
    PressFile,
    Timeout,
)
from modelpress.toolkit.commands.saying import say_line

EXAMPLE = """
modelpress bundle model.press -o handoff
modelpress bundle model.press --target cortex-m4 --calibration-data inputs.npy -o handoff
modelpress bundle model.press --data table.npz --test-data -o handoff
modelpress bundle model.press --flavour int8-sparse --data-dir cifar10 --license MIT -o handoff
"""


def command(
    file: PressFile,
    flavour: Annotated[
        FlavourName | None,
        typer.Option(
            "--flavour",
            help="Of model.onnx, as for the command onnx.",
            show_default="the smallest that runs everywhere",
        ),
    ] = None,
    calibration_data: CalibrationData = None,
    calibration_images: CalibrationImages = DEFAULTS.images,
    calibration_method: CalibrationRule = DEFAULTS.method,
    percentile: Percentile = DEFAULTS.percentile,
    reduce_range: ReduceRange = DEFAULTS.reduce_range,
    data: OwnData = None,
    data_settings: DataSettings = [],
    dataset: DataSet = None,
    data_dir: DataFolder = None,
    target: Annotated[
        Target | None,
        typer.Option(
            "--target",
            help="Hand over firmware in C99 too, in [b]firmware/[/], whose `make` builds for this; needs "
            "--calibration-data.",
            show_default=False,
        ),
    ] = None,
    exits: Annotated[
        bool,
        typer.Option(
            "--exits",
            help="Hand over [b]model-exits.onnx[/] too, which easy images leave early: run.py uses it. The claims are "
            "those of the full network.",
        ),
    ] = False,
    samples: Annotated[
        int,
        typer.Option(
            min=0, help="Test images to hand over, as PNG files; or other examples.", rich_help_panel=DATA
        ),
    ] = 20,
    test_data: Annotated[
        bool,
        typer.Option(
            "--test-data/--no-test-data",
            help="Hand over all test examples: verify.py then measures the figures again by itself.",
            rich_help_panel=DATA,
        ),
    ] = False,
    license_: Annotated[
        str, typer.Option("--license", metavar="SPDX", help="Licence of the model, for the manifest.")
    ] = "unspecified",
    inputs: InputFiles = [],
    shapes: InputShapes = [],
    max_decoded: MaxDecoded = 2,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder to write.", rich_help_panel=OUTPUT)
    ] = Path("handoff"),
    archive: Annotated[
        bool,
        typer.Option("--zip/--no-zip", help="Write a .zip beside the folder too.", rich_help_panel=OUTPUT),
    ] = True,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write the folder (and .zip) that deployment gets: model, runner, checks, measured claims. Needs no torch.

    [b]run.py[/] in it runs the model and [b]verify.py[/] measures the claims again, both without modelpress.
    """
    from modelpress.export.handoff.manifest import Calibration
    from modelpress.export.quantized import QuantizedModel
    from modelpress.toolkit.commands.bundle.making import BundleRequest, archive_path, make_bundle
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.model_files.firmware_writing import FirmwareRequest, add_firmware
    from modelpress.toolkit.model_files.measured_data import measured_set
    from modelpress.toolkit.model_files.onnx_writing import write_flavour

    of_integers = flavour in INTEGER_FLAVOURS
    wanted = flavour_request(
        flavour or "float",
        calibration_data if of_integers or target is None else None,  # else it is for the firmware alone
        n_images=calibration_images,
        method=calibration_method,
        percentile=percentile,
        reduce_range=reduce_range,
    )

    calibration = Calibration(
        method=str(calibration_method),
        percentile=percentile,
        images=calibration_images,
        reduce_range=reduce_range,
    )
    firmware = None
    if target is not None:
        of_firmware = flavour_request(
            "int8",
            calibration_data,
            n_images=calibration_images,
            method=calibration_method,
            percentile=percentile,
            reduce_range=False,
        )
        firmware = partial(add_firmware, request=FirmwareRequest(of_firmware, target=target))

    def write_exits(path: Path, model: QuantizedModel, chosen: str) -> None:
        write_flavour(path, model, request=replace(wanted, flavour=chosen, exits=ExitForm.ONE_FILE))

    request = BundleRequest(
        flavour=flavour,
        write_model=partial(write_flavour, request=wanted),
        calibration=calibration if wanted.is_integer else None,
        given=given_inputs(inputs, shapes),
        max_decoded_bytes=max_decoded << 30,
        data=measured_set(data, data_settings, dataset, data_dir),
        license=license_,
        n_samples=samples,
        test_data=test_data,
        archive=archive,
        overwrite=overwrite,
        add_firmware=firmware,
        write_exits=write_exits if exits else None,
    )
    manifest = make_bundle(file, output, request, TerminalProgress())
    facts = {
        "output": str(output),
        "archive": str(archive_path(output)) if archive else None,
        "manifest": manifest.model_dump(mode="json"),
    }

    def show() -> None:
        say_line(f"{output}/: {len(manifest.files) + 2} files, checked")
        if archive:
            zipped = archive_path(output)
            say_line(f"{zipped}: {zipped.stat().st_size:,} bytes")

    answer(facts, show, as_json=as_json)
