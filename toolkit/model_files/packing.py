"""An ONNX model from anywhere into an artifact."""

from dataclasses import dataclass
from pathlib import Path

from modelpress.export.choices import Effort
from modelpress.export.files.kinds import check_ending
from modelpress.export.graphs.check import check_graph
from modelpress.export.isolation.foreign import foreign_work
from modelpress.export.post_training.packing import TensorSummary, WeightOptions, open_for_packing
from modelpress.export.press.writing import PASSES, write_artifact
from modelpress.toolkit.progress import Progress


@dataclass(frozen=True)
class PackReport:
    """What packing an ONNX model came to.

    Attributes:
        source_bytes: Of the ONNX file and the files its external data lie in.
        size_bytes: Of the artifact.
        ratio: The former by the latter.
        quantized_tensors: Number of tensors stored as codes.
        kept_tensors: Number of tensors stored as they were.
        bits: Width of the codes; None if there are none.
        sparsity: Fraction of exact zeros among the codes; None if there are none.
    """

    output: str
    source_bytes: int
    size_bytes: int
    ratio: float
    quantized_tensors: int
    kept_tensors: int
    bits: int | None
    sparsity: float | None


def pack_onnx(
    path: Path,
    output: Path,
    options: WeightOptions,
    *,
    allow_external_data: bool,
    effort: Effort,
    progress: Progress,
) -> PackReport:
    """Pack an ONNX model into an artifact.

    Raises:
        InputError: A file cannot be read or written.
        ModelError: The model holds something that cannot be packed.
    """
    check_ending(output, "an artifact", (".press",))
    with foreign_work() as process:
        process.start(check_graph.__module__)  # while the file is looked through
        source = open_for_packing(path, options, allow_external_data=allow_external_data)
    if source.objection is not None:
        progress.note(f"packed as it is, though ONNX's strict shape inference objects: {source.objection}")

    progress.start("pack", PASSES * len(source.tensors))
    try:
        size = write_artifact(output, source.model, effort=effort, on_tensor=progress.advance)
    finally:
        progress.finish()

    return _report(output, source.source_bytes, size, list(source.tensors.summaries.values()))


def _report(output: Path, source_bytes: int, size_bytes: int, tensors: list[TensorSummary]) -> PackReport:
    quantized = [tensor for tensor in tensors if tensor.bits is not None]
    n_codes = sum(tensor.n_elements for tensor in quantized)
    n_zeros = sum(tensor.n_zeros or 0 for tensor in quantized)
    return PackReport(
        output=str(output),
        source_bytes=source_bytes,
        size_bytes=size_bytes,
        ratio=source_bytes / size_bytes,
        quantized_tensors=len(quantized),
        kept_tensors=len(tensors) - len(quantized),
        bits=quantized[0].bits if quantized else None,
        sparsity=n_zeros / n_codes if n_codes else None,
    )
