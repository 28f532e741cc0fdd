"""Quantize a float ONNX model with ONNX Runtime's own ``quantize_static``, for a comparison with flavour `int8`.

Stands alone: needs NumPy, onnx and onnxruntime. QDQ nodes, weights int8 with one scale per channel, activations uint8,
ranges from minimum to maximum: the settings that run fastest on x86.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process


class PeerError(Exception):
    """Bad input, or a tool that fails on it."""


class ArrayReader(CalibrationDataReader):  # type: ignore[misc]
    """Hands an array to the calibrator, a batch at a time."""

    def __init__(self, name: str, inputs: npt.NDArray[np.float32], *, batch: int) -> None:
        self._batches = iter(
            [{name: inputs[start : start + batch]} for start in range(0, len(inputs), batch)]
        )

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        """The next batch, or None after the last."""
        return next(self._batches, None)


def main(arguments: list[str] | None = None) -> None:
    """Quantize one file."""
    parser = argparse.ArgumentParser(description="int8 ONNX by onnxruntime.quantization.quantize_static")
    parser.add_argument("model", type=Path, metavar="FLOAT.onnx")
    parser.add_argument(
        "--calibration-data",
        type=Path,
        required=True,
        metavar="INPUTS.npy",
        help="float32, as the model takes it",
    )
    parser.add_argument("--batch", type=int, default=64, help="inputs run at a time")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="INT8.onnx")

    options = parser.parse_args(arguments)
    try:
        inputs = read_inputs(options.calibration_data)
        quantize(options.model, options.output, inputs, batch=options.batch)
    except (PeerError, OSError) as error:
        sys.exit(f"ort_static: {error}")

    print(f"{options.output}: {options.output.stat().st_size:,} bytes, {len(inputs):,} calibration inputs")


def read_inputs(path: Path) -> npt.NDArray[np.float32]:
    """Calibration inputs from an ``.npy`` file.

    Raises:
        PeerError: It holds no float32 batch.
    """
    try:
        inputs = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise PeerError(f"{path}: is no NumPy array file: {error}") from error
    if not isinstance(inputs, np.ndarray) or inputs.dtype != np.float32 or inputs.ndim < 2 or not inputs.size:
        raise PeerError(f"{path}: expected one float32 array, inputs along the first axis")
    return inputs


def quantize(model: Path, output: Path, inputs: npt.NDArray[np.float32], *, batch: int) -> None:
    """Prepare the model as ONNX Runtime's documentation asks for, quantize it, and write the result.

    Raises:
        PeerError: ONNX Runtime fails on it.
    """
    try:
        session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        reader = ArrayReader(session.get_inputs()[0].name, inputs, batch=batch)
        with tempfile.TemporaryDirectory() as folder:
            prepared = Path(folder) / "prepared.onnx"
            quant_pre_process(str(model), str(prepared))

            quantize_static(
                str(prepared),
                str(output),
                reader,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
    except Exception as error:  # onnxruntime's exceptions share no base
        raise PeerError(f"{model}: {error}") from error


if __name__ == "__main__":
    main()
