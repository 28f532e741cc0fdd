"""An artifact as firmware: a folder in C."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modelpress.export.choices import Target
from modelpress.export.errors import InputError
from modelpress.export.firmware.folder import files_of, fill_folder, write_folder
from modelpress.export.firmware.generating import FirmwareOptions, generate
from modelpress.export.firmware.report import facts_of
from modelpress.export.firmware.vectors import make_vectors
from modelpress.export.graphs.entering.opset import in_opset
from modelpress.export.onnx_flavours.int8 import MIN_OPSET
from modelpress.export.quantized import QuantizedModel
from modelpress.toolkit.model_files.onnx_writing import FlavourRequest, calibrated_ranges, calibration_inputs


@dataclass(frozen=True)
class FirmwareRequest:
    """Which firmware is wanted.

    Attributes:
        calibration: Of its activations: a request for flavour int8.
        options: How weights are coded, and which arithmetic.
        n_vectors: Test vectors, from the inputs to calibrate on.
        target: What the folder is built for where nothing is said.
    """

    calibration: FlavourRequest
    options: FirmwareOptions = field(default_factory=FirmwareOptions)
    n_vectors: int = 4
    target: Target = Target.HOST


def write_firmware(folder: Path, model: QuantizedModel, request: FirmwareRequest) -> dict[str, Any]:
    """Write the folder, whole or not at all.

    Returns:
        What it takes, layer by layer, and how it was calibrated.

    Raises:
        InputError: Calibration data are missing or do not fit, or the folder cannot be written.
        ModelError: The network has operators without a form in firmware, or sizes that are not fixed.
    """
    files, facts = firmware_files(model, request)
    write_folder(folder, files)
    return {"output": str(folder), **facts}


def add_firmware(folder: Path, model: QuantizedModel, request: FirmwareRequest) -> None:
    """`write_firmware` into a part of a folder that is written whole itself."""
    files, _ = firmware_files(model, request)
    folder.mkdir()
    fill_folder(folder, files)


def firmware_files(model: QuantizedModel, request: FirmwareRequest) -> tuple[dict[str, str], dict[str, Any]]:
    """The files by name, and what they take; raises as `write_firmware`."""
    model = in_opset(model, MIN_OPSET)
    inputs = calibration_inputs(model, request.calibration)
    if not isinstance(inputs, np.ndarray):
        raise InputError("firmware takes networks of one input; the calibration data are calls of several")
    ranges = calibrated_ranges(model, inputs, request.calibration.options)
    firmware = generate(model, ranges, request.options)
    vectors = make_vectors(model, firmware.network, ranges, inputs[: request.n_vectors])
    facts = {"calibration_inputs": len(inputs), **facts_of(firmware)}
    return files_of(firmware, vectors, target=request.target), facts
