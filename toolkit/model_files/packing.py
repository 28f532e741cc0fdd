"""An ONNX model from anywhere into an artifact."""

import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from modelpress.export.choices import Effort
from modelpress.export.files.kinds import check_ending
from modelpress.export.files.places import check_not_read
from modelpress.export.graphs.check import check_graph
from modelpress.export.graphs.parts import constants_of_functions
from modelpress.export.isolation.foreign import foreign_work
from modelpress.export.post_training.packing import PackInput, TensorSummary, WeightOptions, open_for_packing
from modelpress.export.press.reading import open_artifact
from modelpress.export.press.writing import PASSES, write_artifact
from modelpress.export.quantized import QuantizedModel
from modelpress.toolkit.model_files.shrinking import shrunk_where_equal
from modelpress.toolkit.progress import Progress

_MUCH = 0.05  # of the file: less than that is not worth a word
_NAMED = 4  # kinds of kept tensors, in the note about them


@dataclass(frozen=True)
class Kept:
    """Tensors that stay as they are, of one reader and for one reason.

    Attributes:
        operator: Who reads them.
        reason: Why they are not quantized.
        n_tensors: How many.
        n_bytes: What they take in the artifact; of those inside functions, as they are.
    """

    operator: str
    reason: str
    n_tensors: int
    n_bytes: int


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
        kept: What stays as it is, the largest first, where it is much of the file; empty of lossless ones.
    """

    output: str
    source_bytes: int
    size_bytes: int
    ratio: float
    quantized_tensors: int
    kept_tensors: int
    bits: int | None
    sparsity: float | None
    kept: tuple[Kept, ...] = ()


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
        source = open_for_packing(
            path,
            options,
            allow_external_data=allow_external_data,
            change=partial(_shrunk, progress=progress) if options.remove_dead_channels else None,
        )
    check_not_read(output, source.files)
    if source.objection is not None:
        progress.note(f"packed as it is, though ONNX's strict shape inference objects: {source.objection}")

    for note in source.notes:
        progress.note(note)

    progress.start("pack", PASSES * len(source.tensors))
    try:
        size = write_artifact(output, source.model, effort=effort, on_tensor=progress.advance)
    finally:
        progress.finish()

    report = _report(output, source.source_bytes, size, list(source.tensors.summaries.values()))
    if options.lossless:
        return report

    kept = _kept(output, source)
    n_bytes = sum(group.n_bytes for group in kept)
    if n_bytes <= _MUCH * size:
        return report
    progress.note(_kept_note(kept, n_bytes, size))
    return replace(report, kept=tuple(kept))


def _shrunk(model: QuantizedModel, *, progress: Progress) -> QuantizedModel:
    shrinking = shrunk_where_equal(model)
    progress.note(shrinking.words)
    return shrinking.model


def _kept(output: Path, source: PackInput) -> list[Kept]:
    """What is not quantized, the most bytes first."""
    with open_artifact(output, max_decoded_bytes=sys.maxsize) as artifact:
        sizes = {record.name: record.n_bytes for record in artifact.records}

    groups: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for name, summary in source.tensors.summaries.items():
        if summary.bits is None:
            groups[summary.operator, summary.reason].append(sizes[name])
    for function, n_bytes in constants_of_functions(source.model.graph):
        groups[f"function {function}", "a constant inside a function"].append(n_bytes)

    kept = [Kept(operator, reason, len(n), sum(n)) for (operator, reason), n in groups.items()]
    return sorted(kept, key=lambda group: -group.n_bytes)


def _kept_note(kept: list[Kept], n_bytes: int, size: int) -> str:
    """
    Example:
        >>> _kept_note([Kept("Add", "a vector: a bias or a factor", 2, 60)], 60, 100)
        'kept as it is: 60 bytes, 60 % of the file: 60 in 2 tensors of Add (a vector: a bias or a factor)'
    """
    named = [
        f"{group.n_bytes:,} in {group.n_tensors:,} tensor{'s' * (group.n_tensors > 1)} of {group.operator} "
        f"({group.reason})"
        for group in kept[:_NAMED]
    ]
    more = f"; and {len(kept) - _NAMED} more kinds" if len(kept) > _NAMED else ""
    return f"kept as it is: {n_bytes:,} bytes, {n_bytes / size:.0%} of the file: ".replace("%", " %") + (
        "; ".join(named) + more
    )


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
