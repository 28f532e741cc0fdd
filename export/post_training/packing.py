"""An ONNX file from anywhere as a model to pack: weights quantized when asked for, all else as it is."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.export.errors import InputError, ModelError
from modelpress.export.files.blocks import is_finite
from modelpress.export.graphs.check import check_graph
from modelpress.export.graphs.source import open_onnx
from modelpress.export.lazy_tensors import LazyTensors, spec_of
from modelpress.export.post_training.known_grids import rounded_weight, weight_on_grid
from modelpress.export.post_training.rounding import PostTraining, quantize_weight
from modelpress.export.post_training.weight_plan import Treatment, plan_weights
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, Tensor
from modelpress.export.tensor_spec import DTYPES, TensorSpec


@dataclass(frozen=True)
class WeightOptions:
    """What becomes of the weights of an ONNX model.

    Attributes:
        lossless: Keep every tensor as it is; the other options have no effect.
        quantization: Width, grid and sparsity of the weights.
        per_channel: One scale per output channel instead of one per tensor.
        min_elements: Smaller tensors stay as they are.
        remove_dead_channels: Channels that are zero are to be taken out before; whoever opens the file does it.

    Raises:
        InputError: `min_elements` is negative.
    """

    lossless: bool = False
    quantization: PostTraining = field(default_factory=PostTraining)
    per_channel: bool = True
    min_elements: int = 1024
    remove_dead_channels: bool = False

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
        operator: Who reads it.
        reason: Why it is kept as it is; empty where it is not.
    """

    n_elements: int
    bits: int | None = None
    n_zeros: int | None = None
    operator: str = ""
    reason: str = ""


class PackedTensors(LazyTensors):
    """Each tensor of an ONNX file as it is packed; quantized anew, always alike, at each access.

    Attributes:
        summaries: What became of each tensor that has been asked for.
    """

    def __init__(
        self, source: LazyTensors, treatments: Mapping[str, Treatment], options: WeightOptions
    ) -> None:
        self._source = source
        self._treatments = treatments
        self._options = options
        self.summaries: dict[str, TensorSummary] = {}

    def __len__(self) -> int:
        return len(self._treatments)

    def __iter__(self) -> Iterator[str]:
        return iter(self._treatments)

    def __contains__(self, name: object) -> bool:
        return name in self._treatments

    def _make(self, name: str) -> Tensor:
        """One tensor.

        Raises:
            InputError: Its data in the file are damaged.
        """
        treatment = self._treatments[name]
        tensor = self._made(name, treatment)
        # asked for several times while a file is written, always with the same result
        if name not in self.summaries:
            self.summaries[name] = _summary(tensor, treatment)
        return tensor

    def _spec(self, name: str) -> TensorSpec:
        return self._treatments[name].spec

    def _made(self, name: str, treatment: Treatment) -> Tensor:
        array: npt.NDArray[Any] = np.asarray(self._source[treatment.source])
        array = array.reshape(treatment.spec.shape)
        if self._options.lossless:
            return self._on_its_grid(array, treatment) or array
        if not treatment.is_weight:
            return array

        array = array.astype(DTYPES[treatment.spec.onnx_type], copy=False)
        if treatment.rounding is not None:
            return rounded_weight(array, treatment.rounding) or array

        known = None if self._options.quantization.sparsity else self._on_its_grid(array, treatment)
        try:
            return known or quantize_weight(array, self._options.quantization, channel_axis=treatment.axis)
        except ModelError as error:
            raise ModelError(f"{name}: {error}") from error

    def _on_its_grid(self, array: npt.NDArray[Any], treatment: Treatment) -> QuantizedTensor | None:
        """Codes of a weight that lies on a grid; of biases and shapes they would save nothing."""
        if array.ndim < 2 or array.size < self._options.min_elements or not is_finite(array):
            return None
        return weight_on_grid(array, channel_axis=treatment.axis, signed_zeros=self._options.lossless)


@dataclass(frozen=True)
class PackInput:
    """A model ready to be packed.

    Attributes:
        model: Its tensors are `tensors`.
        tensors: Made when asked for.
        source_bytes: Size of the ONNX file, and of the files its external data lie in.
        files: These files.
        objection: What ONNX's strict shape inference objects to, if anything.
        notes: What else the user should know.
    """

    model: QuantizedModel
    tensors: PackedTensors
    source_bytes: int
    files: tuple[Path, ...]
    objection: str | None
    notes: tuple[str, ...] = ()


class HeldTensors(LazyTensors):
    """Tensors in memory."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def _make(self, name: str) -> Tensor:
        return self._tensors[name]

    def _spec(self, name: str) -> TensorSpec:
        return spec_of(self._tensors, name)


def open_for_packing(
    path: Path,
    options: WeightOptions,
    *,
    allow_external_data: bool = False,
    change: Callable[[QuantizedModel], QuantizedModel] | None = None,
) -> PackInput:
    """Open and check an ONNX file.

    Args:
        path: The file.
        options: What becomes of its weights.
        allow_external_data: Follow tensors into other files of the same folder.
        change: Makes another model of it before its weights are looked at; all of it is then in memory.

    Raises:
        InputError: The file cannot be read, is damaged, or needs what is not supported.
        ModelError: It is no valid ONNX model, or holds a type that cannot be packed.
    """
    source = open_onnx(path, allow_external_data=allow_external_data)
    try:
        objection = check_graph(QuantizedModel(source.graph, source.tensors))
    except (InputError, ModelError) as error:
        raise type(error)(f"{path}: {error}") from error

    graph: onnx.ModelProto = source.graph
    stored: LazyTensors = source.tensors
    if change is not None:
        changed = change(QuantizedModel(graph, dict(stored)))
        graph, stored = changed.graph, HeldTensors(changed.tensors)

    planned = plan_weights(
        graph,
        stored,
        min_elements=options.min_elements,
        per_channel=options.per_channel,
        lossless=options.lossless,
    )
    tensors = PackedTensors(stored, planned.treatments, options)
    model = QuantizedModel(planned.graph, tensors)
    return PackInput(
        model, tensors, source.tensors.size_bytes, tuple(source.tensors.paths), objection, planned.notes
    )


def _summary(tensor: Tensor, treatment: Treatment) -> TensorSummary:
    if not isinstance(tensor, QuantizedTensor):
        reason = treatment.reason or "no grid covers its values"
        return TensorSummary(tensor.size, operator=treatment.operator, reason=reason)

    n_zeros = tensor.codes.size - int(np.count_nonzero(tensor.nonzero))
    return TensorSummary(tensor.codes.size, tensor.bits, n_zeros, treatment.operator)
