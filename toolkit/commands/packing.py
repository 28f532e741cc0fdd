"""What `pack` does with an ONNX model; nothing here needs torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelpress.export.choices import Effort
from modelpress.export.errors import CommandLineError
from modelpress.export.post_training.packing import PackOptions, TensorSummary, open_for_packing
from modelpress.export.post_training.rounding import PostTraining
from modelpress.export.press.artifact import PASSES, write_artifact
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


def is_onnx(path: Path) -> bool:
    """Whether a file is packed as an ONNX model: by its name."""
    return path.suffix.lower() == ".onnx"


def check_options_of_kind(path: Path, *, recipe: Mapping[str, object], foreign: Mapping[str, object]) -> None:
    """Refuse options that the kind of file has no use for; None stands for an option that was not given.

    Raises:
        CommandLineError: There is one.
    """
    useless, reason = (
        (recipe, "is for network files; an ONNX model has no recipe")
        if is_onnx(path)
        else (
            foreign,
            "is for ONNX models (.onnx); a network file is packed with the codes it was trained with",
        )
    )
    for option, value in useless.items():
        if value is not None:
            raise CommandLineError(f"{path}: {_option(option)} {reason}")


def pack_options(
    *,
    lossless: bool | None,
    bits: int | None,
    symmetric: bool | None,
    per_channel: bool | None,
    sparsity: float | None,
    min_elements: int | None,
) -> PackOptions:
    """The options that were given, and defaults for the others.

    Raises:
        CommandLineError: One contradicts ``lossless``.
    """
    grid = _given(bits=bits, symmetric=symmetric, sparsity=sparsity)
    rest = _given(per_channel=per_channel, min_elements=min_elements)
    if lossless and (grid or rest):
        useless = _option(next(iter([*grid, *rest])))
        raise CommandLineError(f"--lossless quantizes nothing, so {useless} has no use: give one of them")
    return PackOptions(lossless=bool(lossless), quantization=PostTraining(**grid), **rest)


def pack_onnx(
    path: Path,
    output: Path,
    options: PackOptions,
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
    source = open_for_packing(path, options, allow_external_data=allow_external_data)
    if source.objection is not None:
        progress.note(f"packed as it is, though ONNX's strict shape inference objects: {source.objection}")
    progress.start("pack", PASSES * len(source.tensors))
    try:
        size = write_artifact(output, source.model, effort=effort, on_tensor=progress.advance)
    finally:
        progress.finish()
    return _report(output, source.source_bytes, size, list(source.tensors.summaries.values()))


def show_packing(report: PackReport) -> None:
    """Print a report as a table."""
    from modelpress.toolkit.commands.console import print_table

    row = {
        "source": f"{report.source_bytes:,}",
        "size": f"{report.size_bytes:,}",
        "ratio": f"{report.ratio:.2f}x",
        "quantized": f"{report.quantized_tensors:,}",
        "kept": f"{report.kept_tensors:,}",
        "bits": "–" if report.bits is None else str(report.bits),
        "sparsity": "–" if report.sparsity is None else f"{report.sparsity:.1%}",
    }
    headings = {
        "source": "bytes in",
        "size": "bytes out",
        "ratio": "smaller",
        "quantized": "quantized",
        "kept": "kept",
        "bits": "bits",
        "sparsity": "sparsity",
    }
    print_table(report.output, [row], headings)


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


def _given(**options: object) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _option(name: str) -> str:
    """How a parameter is written on the command line."""
    return f"--{name.replace('_', '-')}"
