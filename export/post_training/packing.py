"""An ONNX file from anywhere as a model to pack: weights quantized when asked for, all else as it is."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from modelpress.export.errors import InputError, ModelError
from modelpress.export.graphs.check import check_graph
from modelpress.export.graphs.source import OnnxTensors, open_onnx
from modelpress.export.graphs.weights.finding import find_weights
from modelpress.export.lazy_tensors import LazyTensors
from modelpress.export.post_training.rounding import PostTraining, quantize_weight
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, Tensor
from modelpress.export.tensor_spec import TensorSpec


@dataclass(frozen=True)
class WeightOptions:
    """What becomes of the weights of an ONNX model.

    Attributes:
        lossless: Keep every tensor as it is; the other options have no effect.
        quantization: Width, grid and sparsity of the weights.
        per_channel: One scale per output channel instead of one per tensor.
        min_elements: Smaller tensors stay as they are.

    Raises:
        InputError: `min_elements` is negative.
    """

    lossless: bool = False
    quantization: PostTraining = field(default_factory=PostTraining)
    per_channel: bool = True
    min_elements: int = 1024

    def __post_init__(self) -> None:
        if self.min_elements < 0:
            raise InputError(f"the smallest number of elements is {self.min_elements}; expected 0 or more")


@dataclass(frozen=True)
class TensorSummary:
    """What became of a tensor.

    Attributes:
        n_elements: Of the tensor.
        bits: Width of its codes; None if it is kept as it is.
        n_zeros: Exact zeros among its codes; None if it is kept as it is.
    """

    n_elements: int
    bits: int | None = None
    n_zeros: int | None = None


class PackedTensors(LazyTensors):
    """Each tensor of an ONNX file as it is packed; quantized anew, always alike, at each access.

    Attributes:
        summaries: What became of each tensor that has been asked for.
    """

    def __init__(self, source: OnnxTensors, axes: Mapping[str, int | None], options: PostTraining) -> None:
        self._source = source
        self._axes = axes
        self._options = options
        self.summaries: dict[str, TensorSummary] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[str]:
        return iter(self._source)

    def __contains__(self, name: object) -> bool:
        return name in self._source

    def _make(self, name: str) -> Tensor:
        """One tensor.

        Raises:
            InputError: Its data in the file are damaged.
            ModelError: A weight is NaN or infinite.
        """
        tensor = self._quantized(name)
        # asked for several times while a file is written, always with the same result
        if name not in self.summaries:
            self.summaries[name] = _summary(tensor)
        return tensor

    def _spec(self, name: str) -> TensorSpec:
        return self._source.spec(name)

    def _quantized(self, name: str) -> Tensor:
        array = self._source[name]
        if name not in self._axes:
            return array

        try:
            return quantize_weight(array, self._options, channel_axis=self._axes[name])  # type: ignore[arg-type]
        except ModelError as error:
            raise ModelError(f"{name}: {error}") from error


@dataclass(frozen=True)
class PackInput:
    """A model ready to be packed.

    Attributes:
        model: Its tensors are `tensors`.
        tensors: Made when asked for.
        source_bytes: Size of the ONNX file, and of the files its external data lie in.
        objection: What ONNX's strict shape inference objects to, if anything.
    """

    model: QuantizedModel
    tensors: PackedTensors
    source_bytes: int
    objection: str | None


def open_for_packing(path: Path, options: WeightOptions, *, allow_external_data: bool = False) -> PackInput:
    """Open and check an ONNX file.

    Args:
        path: The file.
        options: What becomes of its weights.
        allow_external_data: Follow tensors into other files of the same folder.

    Raises:
        InputError: The file cannot be read, is damaged, or needs what is not supported.
        ModelError: It is no valid ONNX model, or holds a type that cannot be packed.
    """
    source = open_onnx(path, allow_external_data=allow_external_data)
    try:
        objection = check_graph(QuantizedModel(source.graph, source.tensors))
    except (InputError, ModelError) as error:
        raise type(error)(f"{path}: {error}") from error

    axes = _axes(source.graph, source.tensors, options)
    tensors = PackedTensors(source.tensors, axes, options.quantization)
    return PackInput(QuantizedModel(source.graph, tensors), tensors, source.tensors.size_bytes, objection)


def _axes(model: onnx.ModelProto, tensors: OnnxTensors, options: WeightOptions) -> dict[str, int | None]:
    """The channel axis of every tensor that is quantized; None: one scale for all of it."""
    if options.lossless:
        return {}
    axes = find_weights(model, tensors).channel_axes(tensors, min_elements=options.min_elements)
    return axes if options.per_channel else dict.fromkeys(axes)


def _summary(tensor: Tensor) -> TensorSummary:
    if not isinstance(tensor, QuantizedTensor):
        return TensorSummary(tensor.size)
    n_zeros = tensor.codes.size - int(np.count_nonzero(tensor.nonzero))
    return TensorSummary(tensor.codes.size, tensor.bits, n_zeros)
