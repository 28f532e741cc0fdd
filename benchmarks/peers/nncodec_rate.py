"""Bytes and weights of a float ONNX model under NNCodec (ISO/IEC 15938-17), at several steps of its quantizer.

Stands alone: needs NumPy, onnx and NNCodec. ``README.md`` beside it says how to build the environment, and how the
accuracy of what it writes is measured.
"""

import argparse
import importlib
import json
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

_ARGUMENTS = {"verbose": False, "use_dq": True, "opt_qp": False, "param_opt": True, "row_skipping": True}

Arrays = dict[str, npt.NDArray[np.float32]]


def main() -> None:
    """Code the model at every step; write the models that come back, and a record."""
    parser = argparse.ArgumentParser(description="a float ONNX model under NNCodec")
    parser.add_argument("model", type=Path, metavar="FLOAT.onnx")
    parser.add_argument("--qp", default="-40,-36,-32,-28,-24", help="quantization parameters, with commas")
    parser.add_argument("-o", "--output-dir", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="RESULTS.json",
        help="of the models written before: their top-1 joins the record",
    )
    options = parser.parse_args()
    record = options.output_dir / "nncodec-rate.json"
    if options.results is None:
        facts = coded(options.model, [int(qp) for qp in options.qp.split(",")], options.output_dir)
    else:
        facts = with_accuracy(json.loads(record.read_text()), json.loads(options.results.read_text()))
    record.write_text(json.dumps(facts, indent=2) + "\n")


def coded(path: Path, qps: list[int], folder: Path) -> dict[str, Any]:
    """Code the model at every step; returns the record."""
    model = onnx.load(path)
    weights = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims
    }
    if not weights:
        sys.exit(f"{path}: no float initializers; give a float ONNX model that holds its weights")

    folder.mkdir(parents=True, exist_ok=True)
    return {
        "what": "a float ONNX model under NNCodec: quantized with its trellis, coded, decoded",
        "model": path.name,
        "weights": sum(array.size for array in weights.values()),
        "arguments": _ARGUMENTS,
        "rows": [_row(weights, model, qp, folder) for qp in qps],
        "versions": {name: version(name) for name in ("nncodec", "numpy", "torch", "onnx")},
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def with_accuracy(record: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """The record with the top-1 that `modelpress bench` measured of each model."""
    measured = {model["name"]: model["top1"] for model in results["models"]}
    for row in record["rows"]:
        row["top1"] = measured[f"qp{row['qp']}"]
    return record


def _row(weights: Arrays, model: onnx.ModelProto, qp: int, folder: Path) -> dict[str, Any]:
    """One step: its file, and the model of what is decoded from that file."""
    nncodec = importlib.import_module("nncodec.nn")
    began = process_time()
    arguments = {**_ARGUMENTS, "qp": qp, "results": str(folder)}
    stream = bytes(nncodec.encode({name: array.copy() for name, array in weights.items()}, arguments))
    decoded = nncodec.decode(bytearray(stream))
    seconds = process_time() - began

    found = onnx.ModelProto()
    found.CopyFrom(model)
    for tensor in found.graph.initializer:
        if tensor.name in weights:
            values = np.asarray(decoded[tensor.name], np.float32).reshape(weights[tensor.name].shape)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(found, folder / f"qp{qp}.onnx")

    zeros = float(np.mean([np.mean(decoded[name] == 0) for name in weights if weights[name].ndim > 1]))
    row = {"qp": qp, "bytes": len(stream), "seconds": round(seconds, 2), "mean_zeros": zeros}
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
