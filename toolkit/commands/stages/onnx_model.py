"""The `onnx` command."""

from pathlib import Path

from modelpress.export.choices import DEFAULT_TIMEOUT_S
from modelpress.toolkit.commands.answers import answer_line
from modelpress.toolkit.commands.flavour_options import (
    DEFAULTS,
    CalibrationData,
    CalibrationImages,
    CalibrationRule,
    Flavour,
    Percentile,
    ReduceRange,
    flavour_request,
)
from modelpress.toolkit.commands.options import AsJson, MaxDecoded, Overwrite, PressFile, Timeout, output_file

EXAMPLE = """
modelpress onnx model.press -o model.onnx
modelpress onnx model.press --flavour sparse -o model-sparse.onnx
modelpress onnx model.press --flavour int8 --calibration-data inputs.npy -o model-int8.onnx
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
    output: Path = output_file(
        "ONNX file; beyond 2 GiB with its weights in NAME.onnx.data beside it.", "model.onnx"
    ),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a checked ONNX model from an artifact. Needs no torch."""
    from modelpress.export.isolation.foreign import start_early

    start_early("modelpress.export.graphs.check")
    from modelpress.export.press.reading import open_artifact
    from modelpress.toolkit.commands.console import NOTES
    from modelpress.toolkit.model_files.onnx_writing import write_flavour
    from modelpress.toolkit.output_folder import check_output_file

    request = flavour_request(
        flavour,
        calibration_data,
        n_images=calibration_images,
        method=calibration_method,
        percentile=percentile,
        reduce_range=reduce_range,
    )
    check_output_file(output, overwrite=overwrite)
    with open_artifact(file, max_decoded_bytes=max_decoded << 30) as artifact:
        facts = write_flavour(output, artifact.lazy_model(), request)

    for note in facts["notes"]:
        NOTES.print(f"note: {note}", markup=False)
    answer_line(
        f"{output}: {facts['size_bytes']:,} bytes, flavour {flavour}, checked", facts, as_json=as_json
    )
