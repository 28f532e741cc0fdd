"""One exported network: packed in 8 and 4 bits and without loss, in every flavour, and beside ``quantize_static``."""

import importlib.util
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from modelpress import benchmarks
from modelpress.benchmarks.audits.loss import loss_against
from modelpress.benchmarks.subjects.model_file import open_model
from modelpress.export.choices import CALIBRATION_METHOD
from modelpress.export.errors import InputError, ModelError
from modelpress.export.onnx_flavours import FLAVOURS, write_onnx
from modelpress.export.post_training.calibration import CalibrationOptions
from modelpress.export.post_training.packing import WeightOptions
from modelpress.export.post_training.rounding import PostTraining
from modelpress.export.press.reading import read_artifact
from modelpress.export.quantized import QuantizedModel
from modelpress.export.runtime import open_session, run_batched
from modelpress.toolkit.model_files.onnx_writing import chosen_ranges
from modelpress.toolkit.model_files.packing import pack_onnx
from modelpress.toolkit.model_files.unpacking import unpack_file
from modelpress.toolkit.networks.making import make_network
from modelpress.toolkit.progress import Silent
from modelpress.toolkit.studies.networks.shaking import pictures, settled, shaken, spread

SEED, SIZE, N_INPUTS, N_CALIBRATION, BATCH = 0, 128, 16, 32, 16
_CLASSES = 1000
_LEAST_SPREAD = 0.05
_PACKED = {
    "8": (PostTraining(bits=8), tuple(FLAVOURS)),
    "4": (PostTraining(bits=4), ("float", "weight-only", "sparse", "int8-sparse")),
    "8 asymmetric": (PostTraining(bits=8, symmetric=False), ("float",)),
}  # artifacts, and the flavours made of them
Outputs = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Written:
    """A file, and what it computes.

    Attributes:
        cosine: Of all outputs to those of the float model, each input's mean over classes taken off.
        seconds: To write it, calibration included; processor time of this process.
        rule: Of the ranges of activations, where several were tried.
    """

    size_bytes: int
    cosine: float
    seconds: float
    rule: str | None = None


@dataclass(frozen=True)
class ExportRecord:
    """What a row measured.

    Attributes:
        row: Network and exporter.
        parameters: Of the network.
        onnx_bytes: Of the file that the exporter wrote.
        spread: How far an output moves from input to input, over the range of all outputs.
        press: Artifacts by width of codes, as flavour float.
        lossless_bytes: Of the artifact without loss.
        lossless: ``byte-identical`` where the exporter's file comes back, else ``tensor-identical``.
        flavours: Of the artifact in 8 bits, of that in 4 bits (``… 4``) where weights are packed, of the one in 8 bits
            from minimum to maximum (``float asymmetric``), and of the one that holds the exporter's own weights
            (``int8 lossless``).
        quantize_static: ONNX Runtime's own int8 file of the float model.
    """

    row: str
    parameters: int
    onnx_bytes: int
    spread: float
    press: dict[str, Written]
    lossless_bytes: int
    lossless: str
    flavours: dict[str, Written]
    quantize_static: Written

    def as_json(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)


def run_row(row: str, folder: Path) -> ExportRecord:
    """Carry out a row in a folder, which keeps no files of it.

    Raises:
        ModelError: The outputs hardly depend on the input, or tensors do not come back.
        InputError: A file cannot be written.
    """
    name, _, exporter = row.rpartition("-")
    inputs, others = (_pictures(n, seed) for n, seed in ((N_INPUTS, 1), (N_CALIBRATION, 2)))
    network = _network(name, others)
    source = folder / "float.onnx"
    _export(network, source, dynamo=exporter == "dynamo")

    expected = _outputs(source, inputs)
    moved = spread(expected)
    if moved < _LEAST_SPREAD:
        raise ModelError(
            f"{row}: outputs move by {moved:.3f} of their range from input to input; expected more"
        )

    def written(path: Path, write: Callable[[Path], str | None]) -> Written:
        began = time.process_time()
        rule = write(path)
        seconds = time.process_time() - began
        size = path.stat().st_size
        found = Written(size, _cosine(expected, _outputs(path, inputs)), seconds, rule)
        path.unlink()
        return found

    press, flavours = {}, {}
    for kind, (options, chosen) in _PACKED.items():
        artifact = folder / f"{kind}.press"
        began = time.process_time()
        _pack(source, artifact, WeightOptions(quantization=options))
        seconds = time.process_time() - began
        make = partial(_flavour, model=read_artifact(artifact), others=others)
        suffix = kind.removeprefix("8").strip()
        for flavour in chosen:
            key = f"{flavour} {suffix}".strip()
            flavours[key] = written(folder / "flavour.onnx", partial(make, flavour=flavour))

        cosine = flavours[f"float {suffix}".strip()].cosine
        press[kind] = Written(artifact.stat().st_size, cosine, seconds)
        artifact.unlink()

    peer = _peer()
    static = written(
        folder / "static.onnx", lambda path: peer.quantize(source, path, others, batch=N_CALIBRATION)
    )
    lossless_bytes, words = _lossless(source, folder)
    exact = read_artifact(folder / "lossless.press")
    flavours["int8 lossless"] = written(
        folder / "flavour.onnx", partial(_flavour, model=exact, flavour="int8", others=others)
    )
    return ExportRecord(
        row=row,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        onnx_bytes=source.stat().st_size,
        spread=moved,
        press=press,
        lossless_bytes=lossless_bytes,
        lossless=words,
        flavours=flavours,
        quantize_static=static,
    )


def _network(name: str, others: Outputs) -> nn.Module:
    """Untrained, with weights and statistics that let signals through."""
    torch.manual_seed(SEED)
    made = make_network(
        f"torchvision/{name}", factory=None, arguments={}, shortcut="B", seed=SEED, n_classes=_CLASSES
    )
    return settled(shaken(made, seed=SEED), torch.from_numpy(others).split(BATCH)).eval()


def _pictures(n: int, seed: int) -> Outputs:
    return pictures(n, 3, SIZE, SIZE, torch.Generator().manual_seed(seed)).numpy()


def _export(network: nn.Module, path: Path, *, dynamo: bool) -> None:
    example = torch.zeros(2, 3, SIZE, SIZE)
    free: dict[str, Any] = {"dynamic_axes": {"images": {0: "n"}, "logits": {0: "n"}}}
    if dynamo:
        free = {"dynamic_shapes": ({0: torch.export.Dim("n")},), "external_data": False, "verbose": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what exporters advise is no matter here
        torch.onnx.export(
            network,
            (example,),
            str(path),
            dynamo=dynamo,
            input_names=["images"],
            output_names=["logits"],
            **free,
        )


def _pack(source: Path, artifact: Path, options: WeightOptions) -> None:
    pack_onnx(source, artifact, options, allow_external_data=False, effort="default", progress=Silent())


def _flavour(path: Path, *, model: QuantizedModel, flavour: str, others: Outputs) -> str | None:
    """Write a flavour; by which rule its ranges were chosen."""
    if FLAVOURS[flavour].integer is None:
        write_onnx(path, model, flavour=flavour)
        return None

    chosen = chosen_ranges(model, others, CalibrationOptions(method=CALIBRATION_METHOD))
    write_onnx(path, model, flavour=flavour, ranges=chosen.ranges)
    return str(chosen.method)


def _outputs(path: Path, inputs: Outputs) -> Outputs:
    return run_batched(open_session(path.read_bytes()), inputs, batch=BATCH)


def _cosine(expected: Outputs, found: Outputs) -> float:
    left, right = (
        array.astype(np.float64) - array.mean(axis=1, keepdims=True) for array in (expected, found)
    )
    return float((left * right).sum() / np.sqrt((left * left).sum() * (right * right).sum()))


def _lossless(source: Path, folder: Path) -> tuple[int, str]:
    """Size of the artifact, and what of the exporter's file comes back.

    Raises:
        ModelError: Not even every tensor.
    """
    artifact, restored = folder / "lossless.press", folder / "restored.onnx"
    _pack(source, artifact, WeightOptions(lossless=True))
    unpack_file(artifact, restored)
    loss = loss_against(read_artifact(artifact), open_model(source).onnx_model)
    if loss.wrong or loss.lossy:
        raise ModelError(f"{source}: tensors do not come back from an artifact without loss: {loss.wrong}")
    same = restored.read_bytes() == source.read_bytes()
    return artifact.stat().st_size, "byte-identical" if same else "tensor-identical"


def _peer() -> ModuleType:
    """The script that calls ``quantize_static``; it is in the source, not in what is installed.

    Raises:
        InputError: It is not there.
    """
    path = Path(benchmarks.__path__[0], "peers", "ort_static.py")
    spec = importlib.util.spec_from_file_location("ort_static", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"{path} is not there: this study runs from the source")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
