"""One network: compressed, packed, read back, written in every flavour, and each of these run beside it."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from modelpress.benchmarks.audits.fusion import fusion_audit
from modelpress.export.errors import InputError, ModelError
from modelpress.export.onnx_flavours import FLAVOURS, write_onnx
from modelpress.export.onnx_flavours.int8 import activations_to_calibrate, float_islands
from modelpress.export.post_training.calibration import ActivationRanges, CalibrationOptions, calibrate
from modelpress.export.press.reading import read_artifact
from modelpress.export.quantized import QuantizedModel
from modelpress.export.runtime import open_session
from modelpress.toolkit.compression.own_loop import Compression, compress, relative_difference
from modelpress.toolkit.compression.report import LayerPlan
from modelpress.toolkit.studies.networks.rows import SEED, NetworkRow
from modelpress.toolkit.studies.networks.shaking import settled, shaken, spread

RECIPE: Mapping[str, Any] = {
    "prune": {"sparsity": 0.5, "exclude": ()},
    "quantize": {"bits": 4, "layers": {}},
}
LARGEST_DIFFERENCE = 1e-5  # of outputs in ONNX Runtime, over their range
LEAST_SPREAD = 0.02  # of outputs over inputs: far more than what is tolerated between implementations
N_INPUTS, N_CALIBRATION = 16, 32
_N_EXAMPLE, _BATCH = 2, 8
# not the weights' own: inputs that are equal to rows of a weight are no random ones
_INPUT_SEED, _CALIBRATION_SEED = SEED + 1, SEED + 2
Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Island:
    """Operators of one kind that stay in float where the others compute in integers."""

    operator: str
    count: int
    reason: str


@dataclass(frozen=True)
class FlavourRecord:
    """One ONNX file.

    Attributes:
        size_bytes: Of the file.
        difference: Largest one of an output to PyTorch's, over the range of all outputs.
        cosine: Of all outputs to PyTorch's.
        runs: What ONNX Runtime makes of it: number of nodes by operator.
        refused: Why there is no such file; the rest says nothing then.
    """

    size_bytes: int = 0
    difference: float = 0.0
    cosine: float = 0.0
    runs: dict[str, int] | None = None
    refused: str = ""


@dataclass(frozen=True)
class NetworkRecord:
    """What a row measured.

    Attributes:
        name: Of the row.
        source: Where its module comes from.
        input_shape: Of one input.
        exporter: Which of torch's drew the graph.
        parameters: Numbers in all of them; shared ones once.
        weight_layers: Weights of layers, shared ones once.
        coded_layers: Those that the artifact holds as codes.
        coded_weights: Numbers in these.
        zeros: Share of them that are zero.
        left: The others, and parameters of two axes or more that are no layer's, with the reason.
        press_bytes: Of the artifact.
        spread: How far an output moves from input to input, on average, over the range of all outputs.
        difference: Of the decoded artifact, as flavour float, to PyTorch; see `FlavourRecord`.
        flavours: Every one by name.
        islands: What stays in float in the integer flavours.
        seconds: Of everything.
        made_with: Recipe, inputs and versions; a row is measured again where these have changed.
    """

    name: str
    source: str
    input_shape: tuple[int, ...]
    exporter: str
    parameters: int
    weight_layers: int
    coded_layers: int
    coded_weights: int
    zeros: float
    left: list[LayerPlan]
    press_bytes: int
    spread: float
    difference: float
    flavours: dict[str, FlavourRecord]
    islands: list[Island]
    seconds: float
    made_with: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)


def run_network(row: NetworkRow, press: Path, made_with: dict[str, Any]) -> NetworkRecord:
    """Carry out a row.

    Args:
        row: Which network.
        press: Where its artifact goes.
        made_with: Goes into the record.

    Raises:
        ModelError: A file does not compute what the network does, the outputs hardly depend on the input, or a weight
            is neither in codes nor named.
        InputError: The artifact cannot be written.
    """
    began = time.perf_counter()
    torch.manual_seed(SEED)
    others = row.inputs(N_CALIBRATION, seed=_CALIBRATION_SEED)
    network = shaken(row.make(), seed=SEED)
    inputs = row.inputs(N_INPUTS, seed=_INPUT_SEED)
    squeezed = compress(network, inputs[:_N_EXAMPLE], RECIPE)
    # of the network without half its weights, as a training leaves them: with others, single inputs make activations
    # explode, and PyTorch itself is 2e-5 of the range away from float64
    settled(squeezed.network, others.split(_BATCH))
    squeezed.export(press)

    expected = _outputs(squeezed, inputs)
    model = read_artifact(press)
    report = squeezed.report()
    plans = report.layers
    coded, zeros = _checked_codes(row.name, squeezed, plans, model)
    moved = _checked_spread(row.name, expected)

    flavours = _flavours(model, inputs.numpy(), expected, calibration=others.numpy())
    _check_flavours(row.name, flavours)
    return NetworkRecord(
        name=row.name,
        source=row.source,
        input_shape=tuple(inputs.shape[1:]),
        exporter=report.exporter,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        weight_layers=len(plans),
        coded_layers=sum(plan.bits is not None for plan in plans),
        coded_weights=coded,
        zeros=zeros / coded,
        left=[plan for plan in (*plans, *report.others) if plan.bits is None],
        press_bytes=press.stat().st_size,
        spread=moved,
        difference=flavours["float"].difference,
        flavours=flavours,
        islands=[Island(found.operator, found.count, found.reason) for found in float_islands(model)],
        seconds=time.perf_counter() - began,
        made_with=made_with,
    )


def _outputs(squeezed: Compression, inputs: torch.Tensor) -> npt.NDArray[np.float32]:
    """Of the network as it was trained: masks and grids in its forward pass."""
    squeezed.network.eval()
    with torch.no_grad():
        parts = [squeezed.network(part) for part in inputs.split(_BATCH)]
    return torch.cat(parts).numpy()


def _checked_codes(
    name: str, squeezed: Compression, plans: tuple[LayerPlan, ...], model: QuantizedModel
) -> tuple[int, int]:
    """How many weights the artifact holds as codes, and how many of them are zero: those of the forward pass.

    Raises:
        ModelError: They are others, or a layer without codes is not accounted for.
    """
    in_use = squeezed.network.effective_weights()
    wanted = [in_use[plan.name] for plan in plans if plan.bits is not None]
    expected = sum(weight.numel() for weight in wanted), sum(int((weight == 0).sum()) for weight in wanted)
    coded = model.quantized().values()
    found = (
        sum(tensor.codes.size for tensor in coded),
        sum(int(np.count_nonzero(tensor.dequantize() == 0)) for tensor in coded),
    )
    if found != expected:
        raise ModelError(
            f"{name}: the artifact holds {found[0]:,} codes, {found[1]:,} of them zeros; expected {expected[0]:,} "
            f"and {expected[1]:,}"
        )

    unnamed = [plan.name for plan in plans if plan.bits is None and not plan.reason]
    if unnamed:
        raise ModelError(f"{name}: {', '.join(unnamed)}: neither in codes, nor is there a reason")
    return found


def _checked_spread(name: str, outputs: npt.NDArray[np.float32]) -> float:
    moved = spread(outputs)
    if not moved >= LEAST_SPREAD:
        raise ModelError(
            f"{name}: outputs move by {moved:.1e} of their range from input to input; expected {LEAST_SPREAD} or "
            "more: that they agree would prove nothing"
        )
    return moved


def _flavours(
    model: QuantizedModel, inputs: Array, expected: npt.NDArray[np.float32], *, calibration: Array
) -> dict[str, FlavourRecord]:
    """Every flavour written, run and compared."""
    ranges: ActivationRanges | str
    try:
        wanted = activations_to_calibrate(model)
        ranges = calibrate(model, wanted, calibration, CalibrationOptions(batch=_BATCH))
    except (InputError, ModelError) as error:
        ranges = str(error)

    records = {}
    for flavour, made in FLAVOURS.items():
        if made.integer is not None and isinstance(ranges, str):
            records[flavour] = FlavourRecord(refused=ranges)
            continue
        given = ranges if made.integer is not None and not isinstance(ranges, str) else None
        records[flavour] = _written_and_run(model, flavour, given, inputs, expected)
    return records


def _written_and_run(
    model: QuantizedModel,
    flavour: str,
    ranges: ActivationRanges | None,
    inputs: Array,
    expected: npt.NDArray[np.float32],
) -> FlavourRecord:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{flavour}.onnx"
        size = write_onnx(path, model, flavour=flavour, ranges=ranges)
        serialised = path.read_bytes()

    session = open_session(serialised)
    (given,) = session.get_inputs()
    parts = [
        session.run(None, {given.name: inputs[start : start + _BATCH]})[0]
        for start in range(0, len(inputs), _BATCH)
    ]
    found = np.concatenate(parts)
    return FlavourRecord(
        size_bytes=size,
        difference=relative_difference(expected, found),
        cosine=_cosine(expected, found),
        runs=fusion_audit(serialised, name=flavour).optimised if ranges is not None else None,
    )


def _cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    left, right = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(left @ right / np.sqrt((left @ left) * (right @ right)))


def _check_flavours(name: str, flavours: Mapping[str, FlavourRecord]) -> None:
    """Flavours that compute in float give the network's own outputs.

    Raises:
        ModelError: One of them does not.
    """
    for flavour, record in flavours.items():
        if FLAVOURS[flavour].integer is None and not record.difference <= LARGEST_DIFFERENCE:
            raise ModelError(
                f"{name}: outputs of flavour {flavour} differ from the network's by {record.difference:.1e} of their "
                f"range; expected at most {LARGEST_DIFFERENCE:g}"
            )
