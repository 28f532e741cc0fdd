"""What budgets of latency leave of a network: widths, multiplications, bytes, and latency as floats and in int8."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelpress.benchmarks.environment import describe_environment
from modelpress.benchmarks.measures.layer_latency import least_times
from modelpress.export.errors import InputError
from modelpress.export.graphs.channels.shrinking import sizes_of
from modelpress.export.onnx_flavours import emit
from modelpress.export.onnx_flavours.int8 import activations_to_calibrate
from modelpress.export.post_training.calibration import CalibrationOptions, calibrate
from modelpress.export.press.writing import encode_artifact
from modelpress.export.quantized import QuantizedModel
from modelpress.export.runtime import open_session
from modelpress.toolkit.compression.freeze import freeze
from modelpress.toolkit.compression.network_file import load_network
from modelpress.toolkit.compression.passes.prune import pruned_by_magnitude
from modelpress.toolkit.compression.passes.quantize import with_quantizers
from modelpress.toolkit.compression.pruning.shrinking import narrowed
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.networks.layers import weight_layers
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.recipe import BudgetOptions, ModelOptions, PruneOptions, QuantizeOptions
from modelpress.toolkit.studies.networks.shaking import pictures

BATCHES = (1, 64)
_SECONDS = 4.0  # for all networks of a batch size


@dataclass(frozen=True)
class BudgetRow:
    """A network under a budget; latencies are ratios to the full network's in the same flavour, by batch size.

    Attributes:
        budget: Of latency; None for the full network.
        multiple: Of widths.
        widths: Output channels of every layer.
        parameters: Of the graph, batch norms folded.
        macs: Multiplications for one image.
        bytes: Of its artifact: as floats, and in 4 bits, before any finetuning.
        float_latency: One thread.
        int8_latency: One thread.
        words: Why the budget is not met; empty where it is.
    """

    budget: str | None
    multiple: int
    widths: tuple[int, ...]
    parameters: int
    macs: int
    bytes: tuple[int, int]
    float_latency: dict[int, float]
    int8_latency: dict[int, float]
    words: str = ""


def measure_budgets(
    checkpoint: Path,
    model: ModelOptions,
    budgets: Sequence[str],
    multiples: Sequence[int],
    *,
    progress: Progress,
) -> dict[str, Any]:
    """Every budget at every multiple, timed against the full network in turns, in processor time.

    Args:
        checkpoint: Of a trained network.
        model: Its architecture.
        budgets: As ``prune.budget.latency`` takes them.
        multiples: Of widths.
        progress: Told of every network.

    Raises:
        InputError: The checkpoint is not usable.
    """
    full = load_network(checkpoint, model)
    wanted = [(budget, multiple) for budget in budgets for multiple in multiples]
    progress.start("budgets", len(wanted))
    states: list[tuple[str | None, int, NetworkState | None, str]] = [(None, 1, full, "")]
    for budget, multiple in wanted:
        states.append((budget, multiple, *_under(checkpoint, model, budget, multiple)))
        progress.advance(f"{budget}, multiples of {multiple}")
    progress.finish()

    there = [state for _, _, state, _ in states if state is not None]
    times = iter(_ratios(there))
    rows = [
        _row(budget, multiple, state, *next(times)) if state is not None else _unmet(budget, multiple, words)
        for budget, multiple, state, words in states
    ]
    timing = "processor time, least of rounds in turns, one thread"
    return {
        "schema_version": 1,
        "environment": describe_environment(),
        "timing": timing,
        "rows": [asdict(row) for row in rows],
    }


def _under(
    checkpoint: Path, model: ModelOptions, budget: str, multiple: int
) -> tuple[NetworkState | None, str]:
    options = PruneOptions(granularity="channel", budget=BudgetOptions(latency=budget), multiple=multiple)
    try:
        return narrowed(pruned_by_magnitude(load_network(checkpoint, model), options)).state, ""
    except InputError as error:
        return None, str(error)


def _ratios(states: Sequence[NetworkState]) -> list[tuple[dict[int, float], dict[int, float]]]:
    """Of each network, in float and in int8, over the first one, by batch size."""
    flavours = [[_float(state) for state in states], [_int8(state) for state in states]]
    found: list[list[dict[int, float]]] = [[{} for _ in states] for _ in flavours]
    for batch in BATCHES:
        calls = [_call(model, batch) for models in flavours for model in models]
        least = least_times(calls, seconds=_SECONDS)
        for kind in range(len(flavours)):
            own = least[kind * len(states) : (kind + 1) * len(states)]
            for ratios, time in zip(found[kind], own, strict=True):
                ratios[batch] = round(time / own[0], 4)
    return list(zip(*found, strict=True))


def _row(
    budget: str | None,
    multiple: int,
    state: NetworkState,
    in_float: dict[int, float],
    in_int8: dict[int, float],
) -> BudgetRow:
    graph = _frozen(state)
    parameters, macs = sizes_of(graph)
    four = _frozen(with_quantizers(state, QuantizeOptions(bits=4, range="mse", symmetric=True)))
    sizes = len(encode_artifact(graph)), len(encode_artifact(four))
    widths = tuple(len(weight) for weight in weight_layers(state.network).values())
    return BudgetRow(budget, multiple, widths, parameters, macs, sizes, in_float, in_int8)


def _unmet(budget: str | None, multiple: int, words: str) -> BudgetRow:
    return BudgetRow(budget, multiple, (), 0, 0, (0, 0), {}, {}, words)


def _frozen(state: NetworkState) -> QuantizedModel:
    return freeze(state.compressed(), state.inputs, metadata={})


def _float(state: NetworkState) -> bytes:
    return emit(_frozen(state), flavour="float").SerializeToString()


def _int8(state: NetworkState) -> bytes:
    """Ranges of the activations decide nothing about time: those of made-up pictures do."""
    options = QuantizeOptions(bits=8, symmetric=True, per_channel=True, layers={})
    model = _frozen(with_quantizers(replace(state, masks={}), options))
    channels, height, width = state.inputs.tensors()[0].shape[1:]
    x = pictures(16, channels, height, width, torch.Generator().manual_seed(0)).numpy()
    ranges = calibrate(model, activations_to_calibrate(model), x, CalibrationOptions())
    return emit(model, flavour="int8", ranges=ranges).SerializeToString()


def _call(model: bytes, batch: int) -> Callable[[], Any]:
    session = open_session(model, threads=1, spinning=False)
    (given,) = session.get_inputs()
    x = np.random.default_rng(0).standard_normal((batch, *given.shape[1:])).astype(np.float32)
    return lambda: session.run(None, {given.name: x})
