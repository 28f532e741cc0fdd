"""The `verify` command."""

from pathlib import Path
from typing import Annotated

import typer

from modelpress.export.choices import DEFAULT_TIMEOUT_S
from modelpress.export.errors import CommandLineError
from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import AsJson, MaxDecoded, Timeout

EXAMPLE = """
modelpress verify model.press
modelpress verify model.press --against model.onnx
modelpress verify handoff.zip
"""


def command(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A .press artifact, or a bundle: its folder or .zip.", show_default=False
        ),
    ],
    against: Annotated[
        Path | None,
        typer.Option(
            help="ONNX file to compare weights with: what was packed, or what was written from it. Quantized "
            "tensors may differ (it is told by how much), all others must be equal bit for bit.",
            show_default=False,
        ),
    ] = None,
    max_decoded: MaxDecoded = 2,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Check an artifact: checksums, full decode, re-encoding, ONNX checker, ONNX Runtime. Needs no torch.

    A bundle: SHA-256 of every file, input and output, sample images; nothing in it is executed or unpacked in place.
    """
    from modelpress.export.isolation.foreign import start_early

    start_early("modelpress.export.graphs.check", "modelpress.export.runtime")
    from modelpress.toolkit.commands.bundle.recognising import is_bundle
    from modelpress.toolkit.model_files.verifying import verification

    if is_bundle(file):
        if against is not None:
            raise CommandLineError(
                "--against is for a .press file; a bundle is checked against its own manifest"
            )
        from modelpress.toolkit.commands.bundle.making import verify_bundle

        steps = verify_bundle(file, max_decoded_bytes=max_decoded << 30)
    else:
        steps = verification(file, against=against, max_decoded_bytes=max_decoded << 30)

    answer(
        {"file": str(file), "ok": True, "steps": steps},
        lambda: typer.echo("\n".join(f"ok  {step}: {finding}" for step, finding in steps.items())),
        as_json=as_json,
    )
