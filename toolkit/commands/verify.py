"""The `verify` command."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelpress.export.choices import DEFAULT_TIMEOUT_S
from modelpress.export.errors import CommandLineError, ModelError
from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.given_inputs import InputFiles, InputShapes, given_inputs
from modelpress.toolkit.commands.options import AsJson, DataSettings, MaxDecoded, OwnData, Timeout
from modelpress.toolkit.commands.saying import say

if TYPE_CHECKING:
    from modelpress.export.handoff.bundle_files.verify import Finding

BUNDLE = "Bundle"
NOT_CHECKED = 3  # exit code
EXAMPLE = """
modelpress verify model.press
modelpress verify model.press --against model.onnx
modelpress verify handoff.zip --data-dir cifar10 --strict
modelpress verify handoff.zip --data photos
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
    allow_external_data: Annotated[
        bool,
        typer.Option(
            "--allow-external-data", help="Follow tensors of --against into other files of its folder."
        ),
    ] = False,
    inputs: InputFiles = [],
    shapes: InputShapes = [],
    data: OwnData = None,
    data_settings: DataSettings = [],
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Of a bundle: folder of the data set that its accuracy was measured on; it is measured again.",
            show_default=False,
            rich_help_panel=BUNDLE,
        ),
    ] = None,
    latency: Annotated[
        float | None,
        typer.Option(
            metavar="FACTOR",
            help="Of a bundle: measure the latency, which fails above FACTOR times the claim.",
            show_default=False,
            rich_help_panel=BUNDLE,
        ),
    ] = None,
    calibration_data: Annotated[
        Path | None,
        typer.Option(
            "--calibration-data",
            metavar="PATH",
            help="Of a bundle of int8: what its activations were calibrated on, to measure their ranges again.",
            show_default=False,
            rich_help_panel=BUNDLE,
        ),
    ] = None,
    strict: Annotated[bool, typer.Option(help="Exit code 3 where something was not checked.")] = False,
    max_decoded: MaxDecoded = 2,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Check an artifact: checksums, full decode, re-encoding, ONNX checker, ONNX Runtime. Needs no torch.

    A bundle: every file and every claim is held, failed or not checked; nothing in it is executed or unpacked in place.
    """
    from modelpress.export.isolation.foreign import start_early

    start_early("modelpress.export.graphs.check", "modelpress.export.runtime")
    from modelpress.toolkit.commands.bundle.recognising import is_bundle
    from modelpress.toolkit.model_files.measured_data import own_data
    from modelpress.toolkit.model_files.verifying import verification

    given = given_inputs(inputs, shapes)
    if is_bundle(file):
        if against is not None:
            raise CommandLineError(
                "--against is for a .press file; a bundle is checked against its own manifest"
            )
        from modelpress.toolkit.commands.bundle.verifying import verify_bundle

        found = verify_bundle(
            file,
            data_dir=data_dir,
            own=own_data(data, data_settings),
            factor=latency,
            given=given,
            calibration=calibration_data,
            max_decoded_bytes=max_decoded << 30,
        )
    else:
        if data_settings or any(option is not None for option in (data, data_dir, latency, calibration_data)):
            raise CommandLineError(
                "--data, --data-dir, --latency and --calibration-data are for bundles: a .press file claims no figures"
            )
        found = verification(
            file,
            against=against,
            allow_external_data=allow_external_data,
            given=given,
            max_decoded_bytes=max_decoded << 30,
        )

    _answer(file, found, claims=is_bundle(file), as_json=as_json)
    failed = [finding for finding in found if finding.holds is False]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise ModelError(f"{file}: {failed[0].check}: {failed[0].detail}{more}")
    if strict and any(finding.holds is None for finding in found):
        raise typer.Exit(NOT_CHECKED)


def _answer(file: Path, found: "list[Finding]", *, claims: bool, as_json: bool) -> None:
    """A line for every step, or claim of a bundle."""
    from modelpress.export.handoff.bundle_files.verify import WORDS, summary
    from modelpress.export.safe_text import for_terminal

    facts = {
        "file": str(file),
        "ok": all(finding.holds is not False for finding in found),
        "steps": {finding.check: finding.detail for finding in found if finding.holds},
        "claims": [
            {"claim": finding.check, "is": WORDS[finding.holds].lower(), "detail": finding.detail}
            for finding in found
        ],
    }
    lines = [*map(str, found), summary(found)] if claims else [*map(_line, found)]
    answer(facts, lambda: say("\n".join(map(for_terminal, lines))), as_json=as_json)


def _line(step: "Finding") -> str:
    """A step of checking an artifact: one that fails raises."""
    return f"{'ok ' if step.holds else 'not checked '} {step.check}: {step.detail}"
