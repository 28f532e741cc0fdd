"""The `unpack` command."""

from pathlib import Path
from typing import Annotated

import typer

from modelpress.export.choices import DEFAULT_TIMEOUT_S
from modelpress.toolkit.commands.answers import answer_line
from modelpress.toolkit.commands.options import OUTPUT, AsJson, MaxDecoded, Overwrite, PressFile, Timeout

EXAMPLE = """
modelpress unpack model.press -o model.onnx
modelpress unpack model.press -o model.npz
"""


def command(
    file: PressFile,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="[b]NAME.onnx[/]: the model with decoded weights (beyond 2 GiB with [b]NAME.onnx.data[/] beside it); "
            "[b]NAME.npz[/]: integer codes, scales and offsets; a slash in front of a name is written %2F.",
            show_default="FILE with the suffix .onnx",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    levels: Annotated[
        bool,
        typer.Option(
            "--levels",
            help="Into the .npz only the quantized tensors, as the signed levels that are coded (0 = zero).",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    max_decoded: MaxDecoded = 2,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Decode an artifact into an ONNX model or NumPy arrays. Needs no torch."""
    from modelpress.export.files.places import check_not_read
    from modelpress.export.isolation.foreign import start_early
    from modelpress.export.onnx_flavours import data_file_of
    from modelpress.toolkit.model_files.unpacking import unpack_file
    from modelpress.toolkit.output_folder import check_output_file

    target = output or Path(f"{file}.onnx" if not file.suffix else file).with_suffix(".onnx")
    check_not_read(target, [file])
    check_output_file(target, overwrite=overwrite)
    if target.suffix == ".onnx":
        start_early("modelpress.export.graphs.check")
    size = unpack_file(file, target, levels=levels, max_decoded_bytes=max_decoded << 30)
    written = f"{target} and {data_file_of(target).name}" if size > target.stat().st_size else str(target)
    answer_line(f"{written}: {size:,} bytes", {"output": str(target), "size_bytes": size}, as_json=as_json)
