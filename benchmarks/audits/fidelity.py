"""Do two ways of running the same model agree?"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.benchmarks.measures.outputs import Outputs
from modelpress.benchmarks.records import FidelityRecord
from modelpress.benchmarks.subjects.running_weights import constant_tensors
from modelpress.export.errors import ModelError
from modelpress.export.graphs.index import GraphIndex
from modelpress.export.isolation.messages import Array
from modelpress.export.quantized import QuantizedModel, dense_array, tensors_equal

TIE = 1e-4  # logits closer than this are a tie: either label is right


def compare_logits(
    reference: npt.NDArray[np.float32],
    candidate: npt.NDArray[np.float32],
    *,
    reference_name: str,
    candidate_name: str,
) -> FidelityRecord:
    """Agreement of two sets of logits, both of shape ``(n, classes)``.

    Example:
        >>> a = np.array([[0.0, 1.0], [0.5, 0.50001]], np.float32)
        >>> record = compare_logits(a, a[:, ::-1].copy(), reference_name="a", candidate_name="b")
        >>> record.label_agreement, record.differing_labels      # the second image is a tie
        (0.0, 1)
    """
    label, other = reference.argmax(axis=1), candidate.argmax(axis=1)
    # how clearly one side or the other prefers its own label: up to TIE, either label is right
    row = np.arange(len(reference))
    margin = np.maximum(
        reference[row, label] - reference[row, other], candidate[row, other] - candidate[row, label]
    )
    if not (np.isfinite(reference).all() and np.isfinite(candidate).all()):
        raise ModelError(f"logits of {reference_name} or {candidate_name} hold NaN or infinity")

    return FidelityRecord(
        reference=reference_name,
        candidate=candidate_name,
        n_images=len(reference),
        label_agreement=float(np.mean(label == other)),
        differing_labels=int(np.count_nonzero((label != other) & (margin > TIE))),
        largest_difference=float(np.abs(reference - candidate).max(initial=0.0)),
        tie=TIE,
    )


def compare_outputs(
    reference: Outputs, candidate: Outputs, *, reference_name: str, candidate_name: str, classes: bool
) -> FidelityRecord:
    """Agreement of any outputs: of their labels where the last axis is that of classes, and of their values.

    Raises:
        ModelError: They have other shapes, or hold NaN or infinity.
    """
    left, right = (list(o.values()) if isinstance(o, Mapping) else [o] for o in (reference, candidate))
    if [a.shape for a in left] != [b.shape for b in right]:
        raise ModelError(f"outputs of {reference_name} and {candidate_name} have other shapes")

    n, by_label = len(left[0]), classes and len(left) == 1
    a, b = (
        each[0].reshape(-1, each[0].shape[-1])
        if by_label
        else np.concatenate([values.reshape(n, -1) for values in each], axis=1)
        for each in (left, right)
    )
    record = compare_logits(a, b, reference_name=reference_name, candidate_name=candidate_name)
    if by_label:
        return record.model_copy(update={"n_images": n})
    return record.model_copy(update={"label_agreement": None, "differing_labels": 0})


def tensors_that_differ(model: QuantizedModel, onnx_model: onnx.ModelProto) -> list[str]:
    """Names whose decoded values are not bit for bit those that the ONNX file holds, or computes from what it holds.

    Raises:
        InputError: The file's data are damaged, or a tensor's nodes cannot be evaluated.
    """
    held, others = tensors_held(model, onnx_model)
    return sorted(
        [
            name
            for name, tensor in model.tensors.items()
            if name not in held or not same_values(dense_array(tensor), held[name])
        ]
        + others
    )


def tensors_held(model: QuantizedModel, onnx_model: onnx.ModelProto) -> tuple[dict[str, Array], list[str]]:
    """What an ONNX file holds or computes of a model's tensors, and the names of those that it holds besides.

    Raises:
        InputError: The file's data are damaged, or a tensor's nodes cannot be evaluated.
    """
    index = GraphIndex(onnx_model.graph)
    held = constant_tensors(onnx_model, index.constants() & set(model.tensors), index=index)
    sources = index.ancestors([name for name in held if name not in index.stored])[1]
    return held, list(set(index.stored) - set(model.tensors) - set(sources))


def same_values(left: npt.NDArray[np.generic], right: npt.NDArray[np.generic]) -> bool:
    """Bit-exact equality of two arrays, shape and type included."""
    return tensors_equal(left, right)
