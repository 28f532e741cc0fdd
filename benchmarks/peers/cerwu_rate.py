"""Bytes and weights of a trained network under cerwu (arXiv:2505.18758), at several of its prices.

Stands alone: needs NumPy, torch, onnx, safetensors and the packages of cerwu. ``README.md`` beside it says how to
build the environment, and how the accuracy of what it writes is measured.
"""

import argparse
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import process_time
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import load_file
from torch import fx, nn

_BATCH = 128  # as in the settings that come with cerwu
_ARGUMENTS = {"method": "cerwu", "groupsize": -1, "entropy_model": "deepcabac", "scan_order_major": "row"}
_UNUSED = ("tensorflow", "transformers", "timm", "detectors", "datasets", "data_utils")

Norms = dict[str, tuple[torch.Tensor, torch.Tensor]]


def main() -> None:
    """Quantize and code the network at every price; write the models that come back, and a record."""
    parser = argparse.ArgumentParser(description="a trained network under cerwu")
    parser.add_argument(
        "model", type=Path, metavar="FLOAT.onnx", help="of the same network, batch norm folded"
    )
    parser.add_argument("--factory", metavar="FILE.py:FUNCTION", help="returns the network, untrained")
    parser.add_argument("--weights", type=Path, metavar="FILE.safetensors", help="its state dict")
    parser.add_argument(
        "--calibration-data", type=Path, metavar="INPUTS.npy", help="float32, as it takes them"
    )
    parser.add_argument("--prices", default="-9,-8,-7", help="logarithms to the base of 10, with commas")
    parser.add_argument(
        "--bins", type=int, default=16, help="levels between the largest weight and its negative"
    )
    parser.add_argument("-o", "--output-dir", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="RESULTS.json",
        help="of the models written before: their top-1 joins the record",
    )
    options = parser.parse_args()
    record = options.output_dir / "cerwu-rate.json"
    if options.results is not None:
        facts = _with_accuracy(json.loads(record.read_text()), json.loads(options.results.read_text()))
        record.write_text(json.dumps(facts, indent=2) + "\n")
    elif None in (options.factory, options.weights, options.calibration_data):
        parser.error("--factory, --weights and --calibration-data are needed unless there are --results")
    else:
        _code(options, record)


def _code(options: argparse.Namespace, record: Path) -> None:
    """Code the network at every price; rows of an earlier run stay in the record."""
    sys.meta_path.append(_Placeholders())
    network = _network(options.factory, options.weights)
    inputs = torch.from_numpy(np.load(options.calibration_data))
    options.output_dir.mkdir(parents=True, exist_ok=True)
    rows = json.loads(record.read_text())["rows"] if record.exists() else []
    facts = _facts(network, options, len(inputs), _with_hessians(network, inputs))
    for price in options.prices.split(","):
        row = _row(network, options, float(price))
        print(row, flush=True)
        rows = [*(each for each in rows if each["name"] != row["name"]), row]
        record.write_text(json.dumps({**facts, "rows": rows}, indent=2) + "\n")


def _facts(network: nn.Module, options: argparse.Namespace, n_inputs: int, seconds: float) -> dict[str, Any]:
    norms, biases = _stored_besides(network)
    return {
        "what": "a trained network under cerwu: quantized, coded, decoded",
        "model": options.model.name,
        "weights": sum(layer.weight.numel() for _, layer in _layers(network)),
        "calibration_inputs": n_inputs,
        "hessian_seconds": round(seconds, 1),
        "arguments": _ARGUMENTS,
        "bytes_beside_the_stream": {
            "batch_norm_float16": norms,
            "biases_float16": biases,
            "steps_float32": 4 * len(_layers(network)),
        },
        "versions": {name: version(name) for name in ("nn_compression", "NNC", "numpy", "torch", "onnx")},
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _with_accuracy(record: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """The record with the top-1 that `modelpress bench` measured of each model."""
    measured = {model["name"]: model["top1"] for model in results["models"]}
    for row in record["rows"]:
        row["top1"] = measured[row["name"]]
    return record


def _row(network: nn.Module, options: argparse.Namespace, price: float) -> dict[str, Any]:
    """One price: its stream, and the model of what is decoded from that stream."""
    coding = importlib.import_module("nn_compression.coding")
    quantisation = importlib.import_module("nn_compression.quantisation")
    name = f"bins{options.bins}-price{price:g}"
    began = process_time()
    quantizer = quantisation.EntropyQuantisation(options.bins, 10**price, **_ARGUMENTS)
    quantized = quantizer.quantize_network(network)
    seconds = process_time() - began

    coder = coding.DeepCABAC(options.output_dir / f"{name}.nnc")
    coder.encode(quantized)
    decoded = coder.decode()
    weights = {}
    for key, layer in _layers(network):
        weights[key] = torch.as_tensor(decoded[f"{key}.weight"]).float().reshape(layer.weight.shape)
        expected = dict(_layers(quantized))[key].weight
        if not torch.allclose(weights[key], expected, rtol=1e-4, atol=1e-6):
            sys.exit(f"{name}: {key} is decoded to other weights than were quantized")

    _write_model(options.model, network, dict(weights), options.output_dir / f"{name}.onnx")
    n_weights = sum(array.numel() for array in weights.values())
    norms, biases = _stored_besides(network)
    stream = coder.bytes
    return {
        "name": name,
        "log10_price": price,
        "nbins": options.bins,
        "stream_bytes": stream,
        "bytes": stream + norms + biases + 4 * len(weights),
        "stream_bits_per_weight": round(8 * stream / n_weights, 4),
        "zeros": sum(int((array == 0).sum()) for array in weights.values()) / n_weights,
        "seconds": round(seconds, 1),
    }


def _network(factory: str, weights: Path) -> nn.Module:
    """The trained network of a function in a Python file."""
    path, _, function = factory.rpartition(":")
    spec = importlib.util.spec_from_file_location("factory", path)
    if spec is None or spec.loader is None:
        sys.exit(f"{factory}: no Python file; give FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network: nn.Module = getattr(module, function)()
    network.load_state_dict(load_file(weights))
    return network.eval().requires_grad_(requires_grad=False)


def _with_hessians(network: nn.Module, inputs: torch.Tensor) -> float:
    """Leave in every layer what cerwu wants to know of its inputs; returns seconds of the processor."""
    tracker = importlib.import_module("nn_compression.networks").LayerWiseHessianTracker
    began = process_time()
    with torch.no_grad(), tracker(network):
        for start in range(0, len(inputs), _BATCH):
            network(inputs[start : start + _BATCH])
    return process_time() - began


def _layers(network: nn.Module) -> list[tuple[str, nn.Conv2d | nn.Linear]]:
    return [(name, each) for name, each in network.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)]


def _stored_besides(network: nn.Module) -> tuple[int, int]:
    """Bytes of two float16 for each channel of a batch norm, and of biases in float16."""
    norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    biases = [layer.bias for _, layer in _layers(network) if layer.bias is not None]
    return 4 * sum(each.num_features for each in norms), 2 * sum(bias.numel() for bias in biases)


def _norms(network: nn.Module) -> Norms:
    """Scale and shift, as float16 holds them, of the batch norm behind each convolution."""
    found: Norms = {}
    modules = dict(network.named_modules())
    for node in fx.symbolic_trace(network).graph.nodes:
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            shift = norm.bias - norm.running_mean * scale
            found[str(node.args[0].target)] = scale.half().float(), shift.half().float()
    return found


def _write_model(source: Path, network: nn.Module, weights: dict[str, torch.Tensor], to: Path) -> None:
    """The float model with these weights, batch norm folded into them."""
    model = onnx.load(source)
    norms, layers = _norms(network), dict(_layers(network))
    values: dict[str, npt.NDArray[np.float32]] = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        key, bias = node.input[1].removesuffix(".weight"), layers[node.input[1].removesuffix(".weight")].bias
        weight = weights.pop(key)
        if key in norms:
            scale, shift = norms[key]
            weight = weight * scale.reshape(-1, 1, 1, 1)
            shift = shift if bias is None else shift + bias * scale
        elif bias is not None:
            shift = bias.half().float()
        values[node.input[1]], values[node.input[2]] = weight.numpy(), shift.numpy()

    if weights:
        sys.exit(f"{source}: no layers {', '.join(weights)}; give the model of the same network")
    for tensor in model.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    onnx.save(model, to)


class _Placeholders(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Empty classes for packages that cerwu imports beside its quantizer and its coder, where they are missing."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in _UNUSED:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is in it."""


class _Empty(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


if __name__ == "__main__":
    main()
