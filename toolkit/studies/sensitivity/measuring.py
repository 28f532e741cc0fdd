"""What each layer loses in each width, what it costs in bytes, and the widths that make the best file under a budget.

Sizes are those of files that were written and decoded bit-exactly; losses are measured with the weights in these
files. Only training-side images are looked at.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call

from modelpress.export.errors import InputError
from modelpress.export.press.reading import open_artifact
from modelpress.export.press.writing import write_artifact
from modelpress.toolkit.compression.drawing import draw
from modelpress.toolkit.compression.freeze import freeze_state
from modelpress.toolkit.compression.passes.quantize import with_quantizers
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.data.data_set import DataSet, Split
from modelpress.toolkit.networks.layers import layers_with_weights, weight_layers
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.recipe import QuantizeOptions
from modelpress.toolkit.studies.sensitivity.bit_allocation import allocate, least_budget
from modelpress.toolkit.training.evaluate import Judged, Quality, loss_and_figure

_ROUNDS = 8  # of tightening a budget that the file did not keep


@dataclass(frozen=True)
class WidthFile:
    """A network whose layers have certain widths, packed.

    Attributes:
        bits: Code width by layer.
        size_bytes: The whole file.
        layer_bytes: Of the weight of each layer, its scales included.
        weights: What the forward pass computes with, by parameter name.
    """

    bits: dict[str, int]
    size_bytes: int
    layer_bytes: dict[str, int]
    weights: dict[str, Tensor]


class WidthFiles:
    """Files of one network, with any width for any layer; every grid is searched and every file packed only once.

    Args:
        state: Not quantized; masks stay in place.
        options: Symmetry, granularity and zero point of the grids; width, range and layers are not looked at.
    """

    def __init__(self, state: NetworkState, options: QuantizeOptions) -> None:
        self.state = state
        self.layers = list(weight_layers(state.network))
        self._options = measured_options(options)
        self._uniform: dict[int, NetworkState] = {}
        self._files: dict[tuple[int, ...], WidthFile] = {}

    def uniform(self, bits: int) -> WidthFile:
        """All layers in one width."""
        return self.mixed(dict.fromkeys(self.layers, bits))

    def mixed(self, bits: Mapping[str, int]) -> WidthFile:
        """Each layer in its width."""
        key = tuple(bits[layer] for layer in self.layers)
        if key not in self._files:
            self._files[key] = _packed(self._quantized(bits), bits)
        return self._files[key]

    def _quantized(self, bits: Mapping[str, int]) -> NetworkState:
        parts = {width: self._in_one_width(width) for width in sorted(set(bits.values()))}
        return replace(
            self.state,
            quantizers={layer: parts[width].quantizers[layer] for layer, width in bits.items()},
            grids={layer: parts[width].grids[layer] for layer, width in bits.items()},
            history={**self.state.history, "quantize": dict(bits)},
        )

    def _in_one_width(self, bits: int) -> NetworkState:
        if bits not in self._uniform:
            options = self._options.model_copy(update={"bits": bits})
            self._uniform[bits] = with_quantizers(self.state, options)
        return self._uniform[bits]


def measured_options(options: QuantizeOptions) -> QuantizeOptions:
    """The recipe's grids, but of least squared error, as they are before any training, in every layer."""
    return options.model_copy(update={"range": "mse", "learned": False, "layers": {}})


def _packed(state: NetworkState, bits: Mapping[str, int]) -> WidthFile:
    """Write the file, decode it bit-exactly, and see where its bytes are."""
    model = freeze_state(state)
    layers, places = layers_with_weights(state.network), draw(state.network, state.inputs).places

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.press"
        size = write_artifact(path, model)  # refuses what does not decode to the same bits
        with open_artifact(path) as artifact:
            tensor_bytes = {record.name: record.n_bytes for record in artifact.records}

    return WidthFile(
        dict(bits),
        size,
        {layer: tensor_bytes[places[layers[layer].parameter]] for layer in bits},
        _forward_weights(state),
    )


@torch.no_grad()
def _forward_weights(state: NetworkState) -> dict[str, Tensor]:
    """What the codes stand for, by parameter, on the device and in the memory layout of the network's own."""
    network = state.compressed()
    weights = {}
    for name, layer in layers_with_weights(state.network).items():
        own: Tensor = getattr(layer.owner, layer.attribute)
        values = layer.as_stored(network.effective_weight(name))  # `freeze` has compared them with the codes
        weights[layer.parameter] = torch.empty_like(own, requires_grad=False).copy_(values)
    return weights


def measuring_images(images: DataSet, *, limit: int, seed: int) -> tuple[str, Split]:
    """The images that losses are measured on, and where they are from: never the test images.

    Args:
        images: The validation split counts; training images stand in where it is empty.
        limit: At most so many, drawn without repetition.
        seed: Of the draw.
    """
    name, split = ("validation", images.validation) if len(images.validation) else ("training", images.train)

    drawn = np.random.default_rng(seed).permutation(len(split))[:limit]
    return name, split.take(np.sort(drawn))


@dataclass(frozen=True)
class Sensitivity:
    """What one quantized layer in an otherwise exact network does to the loss.

    Attributes:
        weights: Number of weights by layer, in network order.
        bits: The widths, ascending.
        reference: Of the network without any quantization.
        alone: By layer and width, that layer alone being quantized.
        layer_bytes: By layer and width.
    """

    weights: dict[str, int]
    bits: tuple[int, ...]
    reference: Quality
    alone: dict[str, dict[int, Quality]]
    layer_bytes: dict[str, dict[int, int]]

    def increase(self, layer: str, bits: int) -> float:
        """Of the loss, in nats; negative where quantization happened to help."""
        return self.alone[layer][bits].loss - self.reference.loss

    def summed(self, bits: Mapping[str, int]) -> float:
        """What the widths cost in all, if layers do not act on each other; negative increases count as 0."""
        return sum(max(self.increase(layer, width), 0.0) for layer, width in bits.items())

    def costs(self) -> npt.NDArray[np.float64]:
        """Loss increases, shape ``(layers, widths)``."""
        return np.array([[self.increase(layer, width) for width in self.bits] for layer in self.weights])

    def sizes(self) -> npt.NDArray[np.int64]:
        """Bytes, shape ``(layers, widths)``."""
        return np.array([[self.layer_bytes[layer][width] for width in self.bits] for layer in self.weights])


def pack_widths(files: WidthFiles, bits: Sequence[int], progress: Progress) -> None:
    """Pack all uniform widths, which everything else is taken from."""
    progress.start("pack", len(bits))
    try:
        for width in bits:
            files.uniform(width)
            progress.advance(f"{width} bits")
    finally:
        progress.finish()


def smallest_file(files: WidthFiles, bits: Sequence[int]) -> WidthFile:
    """The smallest file in these widths: that of the smallest tensors, or a uniform one that shares more tables."""
    uniform = [files.uniform(width) for width in bits]
    least = {
        layer: bits[int(np.argmin([file.layer_bytes[layer] for file in uniform]))] for layer in files.layers
    }
    return min([*uniform, files.mixed(least)], key=lambda file: file.size_bytes)


def check_budget(files: WidthFiles, bits: Sequence[int], *, budget: int) -> None:
    """Refuse a budget that no file keeps; this needs no measurement.

    Raises:
        InputError: None does.
    """
    smallest = smallest_file(files, bits).size_bytes
    if budget < smallest:
        widths = ", ".join(map(str, bits))
        raise InputError(
            f"a budget of {budget:,} bytes is too small: with {widths} bits the smallest file of this network has "
            f"{smallest:,} bytes; raise --budget, allow narrower --bits, or prune the network first"
        )


def measure(files: WidthFiles, split: Judged, bits: Sequence[int], progress: Progress) -> Sensitivity:
    """Quantize every layer alone in every width, and measure.

    Args:
        files: Of the network.
        split: Images to measure on.
        bits: Widths, ascending.
        progress: Told of every measurement.

    Raises:
        InputError: The loss of the network is not finite.
    """
    uniform = {width: files.uniform(width) for width in bits}
    layers = layers_with_weights(files.state.network)

    progress.start("measure", 1 + len(files.layers) * len(bits))
    try:
        reference = quality_with({}, files.state.network, split)
        progress.advance("reference")

        alone: dict[str, dict[int, Quality]] = {}
        for layer in files.layers:
            alone[layer] = {}
            for width in bits:
                parameter = layers[layer].parameter
                changed = {parameter: uniform[width].weights[parameter]}
                alone[layer][width] = quality_with(changed, files.state.network, split)
                progress.advance(f"{layer}, {width} bits")
    finally:
        progress.finish()

    return Sensitivity(
        {name: weight.numel() for name, weight in weight_layers(files.state.network).items()},
        tuple(bits),
        reference,
        alone,
        {layer: {width: uniform[width].layer_bytes[layer] for width in bits} for layer in files.layers},
    )


class _Changed(nn.Module):
    """A network with other values for some of its parameters; the network itself is not touched."""

    def __init__(self, network: nn.Module, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.network, self.weights = network, dict(weights)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        return functional_call(self.network, self.weights, arguments, named)


def quality_with(weights: Mapping[str, Tensor], network: nn.Module, split: Judged) -> Quality:
    """Loss and accuracy in float32 with these weights, by parameter name, in place of the network's own.

    Raises:
        InputError: The loss is not finite.
    """
    quality = loss_and_figure(_Changed(network, weights), split)
    if not np.isfinite(quality.loss):
        where = f" with a quantized {', '.join(weights)}" if weights else ""
        raise InputError(
            f"the network's loss{where} is {quality.loss}, expected a finite number: its activations overflow; "
            "train it again, or start from another checkpoint"
        )
    return quality


def propose(sensitivity: Sensitivity, files: WidthFiles, *, budget: int) -> WidthFile:
    """The file of the smallest summed loss increase that is found to keep the budget.

    Where the widest width for all layers keeps it, that is the proposal: differences between widths that cost
    next to nothing are chance.

    Args:
        sensitivity: Of this network.
        files: Its files.
        budget: Of the whole file, in bytes.

    Raises:
        InputError: No file does.
    """
    check_budget(files, sensitivity.bits, budget=budget)
    uniform = [files.uniform(width) for width in sensitivity.bits]
    if uniform[-1].size_bytes <= budget:
        return uniform[-1]

    solved = _solved(sensitivity, files, uniform, budget)
    candidates = [*uniform, smallest_file(files, sensitivity.bits), *solved]
    fitting = [file for file in candidates if file.size_bytes <= budget]
    return min(fitting, key=lambda file: (sensitivity.summed(file.bits), file.size_bytes))


def _solved(
    sensitivity: Sensitivity, files: WidthFiles, uniform: Sequence[WidthFile], budget: int
) -> Iterator[WidthFile]:
    """Files of the best widths by the estimate, which is tightened until the file keeps the budget.

    The estimate: tensors of the uniform files, and the least of what these hold besides. Tables that tensors share
    make it inexact by a little. Tightening by a small excess alone might lead to files of that same excess again and
    again, so each round takes twice as many times the excess off.
    """
    costs, sizes = sensitivity.costs(), sensitivity.sizes()
    limit = budget - min(file.size_bytes - sum(file.layer_bytes.values()) for file in uniform)

    for doublings in range(_ROUNDS):
        if limit < least_budget(sizes):
            break
        choices = allocate(costs, sizes, budget=limit)
        file = files.mixed(_widths(sensitivity, choices))
        yield file
        if file.size_bytes <= budget:
            return

        estimate = int(sizes[np.arange(len(choices)), choices].sum())
        limit = estimate - 2**doublings * (file.size_bytes - budget)


def _widths(sensitivity: Sensitivity, choices: npt.NDArray[np.int64]) -> dict[str, int]:
    return {
        layer: sensitivity.bits[choice] for layer, choice in zip(sensitivity.weights, choices, strict=True)
    }
