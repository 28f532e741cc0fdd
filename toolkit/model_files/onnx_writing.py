"""An artifact as an ONNX model of any flavour."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelpress.export.choices import CALIBRATION_INPUTS
from modelpress.export.errors import CommandLineError
from modelpress.export.files.kinds import check_ending
from modelpress.export.graphs.entering.opset import in_opset
from modelpress.export.graphs.parts import metadata
from modelpress.export.onnx_flavours import FLAVOURS, check_flavour, data_file_of, prepare, write_emission
from modelpress.export.onnx_flavours.int8 import MIN_OPSET, activations_to_calibrate
from modelpress.export.post_training.calibration import (
    ActivationRanges,
    CalibrationOptions,
    Inputs,
    calibrate,
)
from modelpress.export.quantized import QuantizedModel
from modelpress.toolkit.data.calibration_data import load_calibration


@dataclass(frozen=True)
class FlavourRequest:
    """Which ONNX model is wanted.

    Attributes:
        flavour: A key of `modelpress.export.onnx_flavours.FLAVOURS`.
        data: For integer flavours, inputs to calibrate activations on: a file or a data set's folder.
        n_images: How many of them, at most.
        options: How ranges are chosen.
        reduce_range: Integer weights of 7 bits.

    Raises:
        InputError: The flavour is unknown, or one without calibration gets data for it.
    """

    flavour: str
    data: Path | None = None
    n_images: int = CALIBRATION_INPUTS
    options: CalibrationOptions = field(default_factory=CalibrationOptions)
    reduce_range: bool = False

    def __post_init__(self) -> None:
        check_flavour(self.flavour)
        if not self.is_integer and (self.data is not None or self.reduce_range):
            raise CommandLineError(
                f"--calibration-data and --reduce-range are for integer flavours; {self.flavour} computes in float"
            )

    @property
    def is_integer(self) -> bool:
        """Whether activations are calibrated."""
        return FLAVOURS[self.flavour].integer is not None


def write_flavour(path: Path, model: QuantizedModel, request: FlavourRequest) -> dict[str, Any]:
    """Write an ONNX file, whole or not at all.

    Returns:
        Its size, flavour, notes, and how it was calibrated.

    Raises:
        InputError: Calibration data are missing or do not fit, or the file cannot be written.
        ModelError: The flavour cannot be made of this model.
    """
    check_ending(path, "an ONNX model", (".onnx",))
    facts: dict[str, Any] = {"output": str(path), "flavour": request.flavour}
    ranges = None

    if request.is_integer:
        inputs = load_calibration(request.data, n_images=request.n_images, metadata=metadata(model.graph))
        ranges = calibrated_ranges(model, inputs, request.options)
        facts["calibration"] = {
            "method": str(request.options.method),
            "inputs": len(inputs),
            "activations": len(ranges),
            "reduce_range": request.reduce_range,
        }

    emission = prepare(model, flavour=request.flavour, ranges=ranges, reduce_range=request.reduce_range)
    size = write_emission(path, emission)
    notes = list(emission.notes)
    if size > path.stat().st_size:
        notes.append(
            f"one ONNX file holds 2 GiB: the weights are in {data_file_of(path).name}; keep both files together"
        )
    return {**facts, "size_bytes": size, "notes": notes}


def calibrated_ranges(model: QuantizedModel, inputs: Inputs, options: CalibrationOptions) -> ActivationRanges:
    """The ranges that the integer flavours need.

    Raises:
        InputError: The inputs do not fit the model.
        ModelError: Nothing in it computes in integers.
    """
    new = in_opset(model, MIN_OPSET)  # whose activations have the names that the flavour knows
    return calibrate(new, activations_to_calibrate(new), inputs, options)
