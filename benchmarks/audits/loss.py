"""What packing cost: the decoded weights of an artifact beside those of a model, tensor by tensor."""

from dataclasses import dataclass
from math import inf, log10

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.benchmarks.audits.fidelity import same_values
from modelpress.benchmarks.subjects.running_weights import constant_tensors
from modelpress.export.files.blocks import blocks
from modelpress.export.graphs.entering.nested import with_lifted_constants
from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.initializers import initializers, with_initializers
from modelpress.export.graphs.source import MAX_CONSTANT_ELEMENTS
from modelpress.export.isolation.messages import Array
from modelpress.export.lazy_tensors import dense_of
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, dense_array


@dataclass(frozen=True)
class TensorLoss:
    """How far a decoded tensor is from the one that it stands for.

    Attributes:
        largest: Largest absolute difference of an entry.
        mean: Mean absolute difference.
        signal: Sum of the squares of the model's entries.
        noise: Sum of the squares of the differences.
    """

    name: str
    largest: float
    mean: float
    signal: float
    noise: float


@dataclass(frozen=True)
class Loss:
    """An artifact beside a model.

    Attributes:
        n_tensors: Tensors compared.
        n_equal: Those that are equal bit for bit.
        lossy: Quantized tensors that differ, the largest difference first.
        wrong: Names of tensors that must not differ and do: those that are not quantized, those of another shape, and
            those that only one of the two has.
    """

    n_tensors: int
    n_equal: int
    lossy: tuple[TensorLoss, ...]
    wrong: tuple[str, ...]

    @property
    def signal_to_noise_db(self) -> float:
        """Of all quantized tensors that differ, in decibels; infinite where none does.

        Example:
            >>> half = TensorLoss("w", largest=0.1, mean=0.1, signal=100.0, noise=0.1)
            >>> Loss(1, 0, (half,), ()).signal_to_noise_db
            30.0
        """
        signal, noise = (sum(getattr(t, part) for t in self.lossy) for part in ("signal", "noise"))
        if not noise:
            return inf
        return 10 * log10(signal / noise) if signal else -inf


def loss_against(model: QuantizedModel, onnx_model: onnx.ModelProto) -> Loss:
    """Compare every tensor of a decoded artifact with the one of the same name in a model.

    A tensor of the model that the artifact's graph computes from what it holds (doubles, tensors with infinities) is
    compared with what is computed.

    Raises:
        InputError: The model's data are damaged, or a tensor's nodes cannot be evaluated.
    """
    onnx_model = with_lifted_constants(onnx_model, larger_than=MAX_CONSTANT_ELEMENTS)
    graph = onnx.ModelProto()
    graph.CopyFrom(onnx_model)
    del graph.graph.initializer[:]
    return loss_beside(model, QuantizedModel(graph, initializers(onnx_model)))


def loss_beside(model: QuantizedModel, original: QuantizedModel) -> Loss:
    """`loss_against` for a model whose graph and tensors are apart; of lazy tensors one at a time is in memory.

    Raises:
        InputError: As for `loss_against`.
    """
    held = _Computed.of(original, set(model.tensors) - set(original.tensors))
    others = set(original.tensors) - set(model.tensors) - held.parts
    computed = _Computed.of(model, others)

    n_equal, lossy, wrong = 0, [], sorted(others - set(computed.arrays))
    for name in [*(name for name in model.tensors if name not in computed.parts), *computed.arrays]:
        if name not in held.arrays and name not in original.tensors:
            wrong.append(name)
            continue

        tensor = None if name in computed.arrays else model.tensors[name]  # decoded anew at every access
        is_coded = name in computed.coded or isinstance(tensor, QuantizedTensor)
        decoded = computed.arrays[name] if tensor is None else dense_array(tensor)
        expected = held.arrays[name] if name in held.arrays else dense_of(original.tensors, name)
        if is_coded and expected.ndim == 1 and expected.size == decoded.size:
            expected = expected.reshape(decoded.shape)  # stored in the shape in which the graph reads it

        if same_values(decoded, expected):
            n_equal += 1
        elif is_coded and decoded.shape == expected.shape:
            lossy.append(_loss(name, decoded, expected))
        else:
            wrong.append(name)

    lossy.sort(key=lambda tensor: -tensor.largest)
    return Loss(n_equal + len(lossy) + len(wrong), n_equal, tuple(lossy), tuple(sorted(wrong)))


@dataclass(frozen=True)
class _Computed:
    """Tensors that a model's graph computes from those that it holds.

    Attributes:
        arrays: By name.
        coded: Those of them that are made of quantized tensors.
        parts: What they are made of.
    """

    arrays: dict[str, Array]
    coded: set[str]
    parts: set[str]

    @classmethod
    def of(cls, model: QuantizedModel, names: set[str]) -> "_Computed":
        if not names:
            return cls({}, set(), set())

        # tensors without values tell what is constant; the values of few of them are needed
        described = onnx.ModelProto()
        described.CopyFrom(model.graph)
        described.graph.initializer.extend(onnx.TensorProto(name=name) for name in model.tensors)
        index = GraphIndex(described.graph)
        wanted = sorted(names & index.constants())
        sources = {name: set(index.ancestors([name])[1]) for name in wanted}
        parts = set().union(*sources.values())

        values = {name: dense_array(model.tensors[name]) for name in model.tensors if name in parts}
        coded = {
            name
            for name in wanted
            if any(isinstance(model.tensors.get(part), QuantizedTensor) for part in sources[name])
        }
        arrays = constant_tensors(with_initializers(model.graph, values), wanted)
        return cls(arrays, coded, parts)


def _loss(name: str, decoded: npt.NDArray[np.generic], expected: npt.NDArray[np.generic]) -> TensorLoss:
    largest = total = signal = noise = 0.0
    for stored, found in zip(
        blocks(expected), blocks(decoded), strict=True
    ):  # in double precision: several times as large
        wanted = stored.astype(np.float64)
        gap = found.astype(np.float64) - wanted
        size = np.abs(gap)
        largest = max(largest, float(size.max(initial=0.0)))
        total += float(size.sum())
        signal += float(np.square(wanted).sum())
        noise += float(np.square(gap).sum())
    mean = total / expected.size if expected.size else 0.0
    return TensorLoss(name=name, largest=largest, mean=mean, signal=signal, noise=noise)
