"""What packing cost: the decoded weights of an artifact beside those of a model, tensor by tensor."""

from dataclasses import dataclass
from math import inf, log10

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.benchmarks.audits.fidelity import same_values, tensors_held
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
        n_tensors: Tensors of the artifact.
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

    Raises:
        InputError: The model's data are damaged, or a tensor's nodes cannot be evaluated.
    """
    held, others = tensors_held(model, onnx_model)
    n_equal, lossy, wrong = 0, [], list(others)
    for name, tensor in model.tensors.items():
        decoded = dense_array(tensor)
        if name not in held:
            wrong.append(name)
        elif same_values(decoded, held[name]):
            n_equal += 1
        elif isinstance(tensor, QuantizedTensor) and decoded.shape == held[name].shape:
            lossy.append(_loss(name, decoded, held[name]))
        else:
            wrong.append(name)

    lossy.sort(key=lambda tensor: -tensor.largest)
    return Loss(len(model.tensors), n_equal, tuple(lossy), tuple(sorted(wrong)))


def _loss(name: str, decoded: npt.NDArray[np.generic], expected: npt.NDArray[np.generic]) -> TensorLoss:
    wanted = expected.astype(np.float64)
    gap = decoded.astype(np.float64) - wanted
    size = np.abs(gap)
    return TensorLoss(
        name=name,
        largest=float(size.max(initial=0.0)),
        mean=float(size.mean()) if size.size else 0.0,
        signal=float(np.square(wanted).sum()),
        noise=float(np.square(gap).sum()),
    )
