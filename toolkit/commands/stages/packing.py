"""What `pack` reads from its options for an ONNX model, and what it prints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelpress.export.errors import CommandLineError
from modelpress.export.files.kinds import Kind, Wanted, check_kind, kind_of
from modelpress.export.post_training.packing import WeightOptions
from modelpress.export.post_training.rounding import PostTraining
from modelpress.toolkit.model_files.packing import PackReport


def is_onnx(path: Path) -> bool:
    """Whether a file is packed as an ONNX model: by its name, or by its first bytes."""
    return path.suffix.lower() == ".onnx" or kind_of(path) is Kind.ONNX


def check_options_of_kind(path: Path, *, recipe: Mapping[str, object], foreign: Mapping[str, object]) -> None:
    """Refuse options that the kind of file has no use for; None stands for an option that was not given.

    Raises:
        CommandLineError: There is one.
        InputError: The file is of a kind that is not packed.
    """
    check_kind(path, Wanted.PACKABLE)
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
    remove_dead_channels: bool | None,
) -> WeightOptions:
    """The options that were given, and defaults for the others.

    Raises:
        CommandLineError: One contradicts ``lossless``.
    """
    grid = _given(bits=bits, symmetric=symmetric, sparsity=sparsity)
    rest = _given(per_channel=per_channel, min_elements=min_elements)
    if lossless and remove_dead_channels:
        raise CommandLineError(
            "--lossless keeps every tensor, --remove-dead-channels does not: give one of them"
        )
    if lossless and (grid or rest):
        useless = _option(next(iter([*grid, *rest])))
        raise CommandLineError(f"--lossless quantizes nothing, so {useless} has no use: give one of them")
    return WeightOptions(
        lossless=bool(lossless),
        quantization=PostTraining(**grid),
        remove_dead_channels=bool(remove_dead_channels),
        **rest,
    )


def refuse_with_price(options: Mapping[str, object]) -> None:
    """Refuse options that a price decides.

    Raises:
        CommandLineError: One is given.
    """
    for option, value in options.items():
        if value is not None and option != "min_elements":
            raise CommandLineError(
                f"{_option(option)} has no use at a price per bit, which decides it itself"
            )


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


def _given(**options: object) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _option(name: str) -> str:
    """How a parameter is written on the command line."""
    return f"--{name.replace('_', '-')}"
