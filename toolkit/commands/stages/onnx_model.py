"""The `onnx` command."""

from pathlib import Path
from typing import Annotated, Any

import typer

from modelpress.export.choices import DEFAULT_TIMEOUT_S, ExitForm
from modelpress.export.errors import CommandLineError
from modelpress.toolkit.commands.answers import answer, answer_line
from modelpress.toolkit.commands.flavour_options import (
    DEFAULTS,
    AutoExclude,
    CalibrationData,
    CalibrationImages,
    CalibrationRule,
    Exclude,
    Flavour,
    Noise,
    Percentile,
    ReduceRange,
    flavour_request,
)
from modelpress.toolkit.commands.options import AsJson, MaxDecoded, Overwrite, PressFile, Timeout, output_file

EXAMPLE = """
modelpress onnx model.press -o model.onnx
modelpress onnx model.press --flavour sparse -o model-sparse.onnx
modelpress onnx model.press --flavour int8 --calibration-data inputs.npy -o model-int8.onnx
modelpress onnx model.press --flavour int8 --calibration-data inputs.npy --auto-exclude 0.05 -o model-int8.onnx
modelpress onnx --expand model-sparse.onnx -o model-plain.onnx
modelpress onnx model.press --exits one-file -o model-exits.onnx
"""


def command(
    file: PressFile,
    flavour: Flavour = "float",
    calibration_data: CalibrationData = None,
    calibration_images: CalibrationImages = DEFAULTS.images,
    calibration_method: CalibrationRule = DEFAULTS.method,
    percentile: Percentile = DEFAULTS.percentile,
    reduce_range: ReduceRange = DEFAULTS.reduce_range,
    max_decoded: MaxDecoded = 2,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    exclude: Exclude = [],
    auto_exclude: AutoExclude = None,
    noise: Noise = False,
    opset: Annotated[
        int | None,
        typer.Option(
            "--opset",
            min=13,
            max=21,
            help="Convert the graph to this opset where its own is older: 19 for onnx's reference evaluator.",
            show_default="(that of the model)",
        ),
    ] = None,
    exits: Annotated[
        ExitForm | None,
        typer.Option(
            "--exits",
            help="Leave early, where the model has exits: one-file computes no further than the exit that one example "
            "leaves by; stages are NAME-stage1.onnx and so on, for any batch.",
            show_default="(the full network)",
        ),
    ] = None,
    expand: Annotated[
        bool,
        typer.Option(
            "--expand",
            help="FILE is an ONNX file of a small flavour: write its weights as constants, as a runtime computes them "
            "at load.",
        ),
    ] = False,
    output: Path = output_file(
        "ONNX file; beyond 2 GiB with its weights in NAME.onnx.data beside it.", "model.onnx"
    ),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a checked ONNX model from an artifact, or the plain form of a small one. Needs no torch."""
    from modelpress.export.isolation.foreign import start_early

    start_early("modelpress.export.graphs.check")
    from modelpress.export.press.reading import open_artifact
    from modelpress.toolkit.commands.console import NOTES
    from modelpress.toolkit.model_files.onnx_expanding import expand_onnx
    from modelpress.toolkit.model_files.onnx_writing import FlavourRequest, write_flavour
    from modelpress.toolkit.output_folder import check_output_file

    request = flavour_request(
        flavour,
        calibration_data,
        n_images=calibration_images,
        method=calibration_method,
        percentile=percentile,
        reduce_range=reduce_range,
        exclude=exclude,
        loss=auto_exclude,
        noise=noise,
        opset=opset,
        exits=exits,
    )
    check_output_file(output, overwrite=overwrite)
    if expand:
        if request != FlavourRequest("float"):
            raise CommandLineError(
                "--expand computes the weights of a file as it is; options of flavours do not apply"
            )
        expanded = expand_onnx(file, output)
        line = f"{output}: {expanded['size_bytes']:,} bytes, {expanded['nodes']} nodes computed"
        answer_line(line, expanded, as_json=as_json)
        return

    with open_artifact(file, max_decoded_bytes=max_decoded << 30) as artifact:
        facts = write_flavour(output, artifact.lazy_model(), request)

    for note in facts["notes"]:
        NOTES.print(f"note: {note}", markup=False)
    written = ", ".join(facts.get("files", [str(output)]))
    line = f"{written}: {facts['size_bytes']:,} bytes, flavour {flavour}, checked"
    answer(facts, lambda: _show(line, facts), as_json=as_json)


def _show(line: str, facts: dict[str, Any]) -> None:
    """What integers do to each layer, where that was measured, and the line."""
    from modelpress.toolkit.commands.console import print_table
    from modelpress.toolkit.commands.saying import say_line

    if "noise" in facts:
        noise = facts["noise"]
        rows = [
            {
                "layer": layer["layer"],
                "operator": layer["operator"],
                "signal": "–" if layer["decibels"] is None else f"{layer['decibels']:.1f} dB",
                "own": f"{layer['own']:.2%}",
            }
            for layer in noise["layers"]
        ]
        headings = {
            "layer": "layer in integers",
            "operator": "operator",
            "signal": "signal to noise",
            "own": "noise of its own",
        }
        excluded = f", in float: {', '.join(noise['excluded'])}" if noise["excluded"] else ""
        print_table(f"error of the outputs {noise['loss']:.2%}{excluded}", rows, headings, text=("operator",))

    say_line(line)
