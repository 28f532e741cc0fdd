"""What `modelpress verify` does with a bundle: every claim is held, failed or not checked."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import onnx

from modelpress.benchmarks.subjects.given import NOTHING, Given
from modelpress.benchmarks.subjects.model_file import open_model
from modelpress.export.choices import DEFAULT_MAX_DECODED_BYTES, CalibrationMethod
from modelpress.export.errors import CommandLineError, InputError, ModelpressError
from modelpress.export.handoff import bundle_files
from modelpress.export.handoff.bundle import open_bundle
from modelpress.export.handoff.bundle_files.verify import Finding
from modelpress.export.handoff.manifest import Manifest
from modelpress.export.isolation.foreign import foreign_work
from modelpress.export.onnx_flavours import FLAVOURS
from modelpress.export.post_training.calibration import ActivationRanges, CalibrationOptions
from modelpress.export.press.reading import open_artifact
from modelpress.export.quantized import QuantizedModel
from modelpress.toolkit.commands.bundle.checking import ONNX, PRESS, check_sizes, findings_of
from modelpress.toolkit.commands.bundle.claims import compression_of
from modelpress.toolkit.commands.bundle.making import CARD, SCRIPTS, archive_path
from modelpress.toolkit.commands.bundle.model_card import model_card
from modelpress.toolkit.commands.bundle.porting import SNIPPETS
from modelpress.toolkit.commands.bundle.same_network import network_findings
from modelpress.toolkit.data.measured_set import Sections
from modelpress.toolkit.model_files.onnx_writing import (
    FlavourRequest,
    calibrated_ranges,
    calibration_inputs,
)
from modelpress.toolkit.model_files.verifying import verification


def verify_bundle(
    path: Path,
    *,
    data_dir: Path | None = None,
    own: Sections | None = None,
    factor: float | None = None,
    given: Given = NOTHING,
    calibration: Path | None = None,
    max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES,
) -> list[Finding]:
    """Check a bundle from anywhere, its artifact included.

    Nothing in it is executed: the checks are those of this project's own copy of `verify.py`, and more.

    Args:
        path: Of the folder or archive.
        data_dir: Where the data set is that the accuracy was measured on.
        own: Data of the user's own, in place of that.
        factor: Time the model, and judge the claimed latency within this factor.
        given: What the user says of inputs, with which the artifact is run; others are made up.
        calibration: Where the data are that activations of an integer flavour were calibrated on.
        max_decoded_bytes: Refuse an artifact whose tensors are larger in memory.

    Raises:
        ArtifactError: Its artifact is damaged, before anything else was looked at.
        InputError: It cannot be read, is no bundle, or was changed since it was made.
    """
    with foreign_work(), open_bundle(path) as bundle, tempfile.TemporaryDirectory() as temporary:
        flavour = FLAVOURS.get(bundle.manifest.flavour)
        if calibration is not None and (flavour is None or flavour.integer is None):
            raise CommandLineError(
                f"--calibration-data is for integer flavours; {path} holds {bundle.manifest.flavour}"
            )
        check_sizes(bundle, Path(temporary, PRESS), max_decoded_bytes=max_decoded_bytes)
        folder = Path(temporary)
        bundle.copy_to(folder)
        written = open_model(folder / ONNX).onnx_model  # refuses a model that would read other files

        return [
            *findings_of(folder, data_dir=data_dir, factor=factor, read_images=True, own=own),
            *_artifact_findings(folder, written, bundle.manifest, given, calibration, max_decoded_bytes),
            *_text_findings(folder, bundle.manifest),
            *_archive_finding(path, bundle.manifest),
        ]


def _artifact_findings(
    folder: Path,
    written: onnx.ModelProto,
    manifest: Manifest,
    given: Given,
    calibration: Path | None,
    max_decoded_bytes: int,
) -> Iterator[Finding]:
    """The artifact by itself, and whether `model.onnx` and the claimed compression are its own."""
    try:
        for step in verification(folder / PRESS, given=given, max_decoded_bytes=max_decoded_bytes):
            yield step._replace(check=f"{PRESS}, {step.check}")
        with open_artifact(folder / PRESS, max_decoded_bytes=max_decoded_bytes) as artifact:
            model = artifact.model()
    except ModelpressError as error:
        yield Finding(PRESS, False, str(error))
        return

    versions = manifest.environment.get("versions")
    known = versions if isinstance(versions, dict) else {}
    calibrate = None if calibration is None else partial(_calibrated, model, manifest, calibration)
    for finding in network_findings(
        model, written, flavour=manifest.flavour, versions=known, calibrate=calibrate
    ):
        yield finding._replace(check=f"{PRESS}, {finding.check}")

    counted, claimed = compression_of(model), manifest.compression
    words = f"{claimed.zeros:,} of {claimed.weights:,} quantized weights are zero"
    same = counted == claimed
    yield Finding("compression", same, words if same else f"claimed {claimed}; {PRESS} has {counted}")


def _calibrated(model: QuantizedModel, manifest: Manifest, data: Path) -> ActivationRanges:
    """Ranges of activations, measured as the manifest says.

    Raises:
        InputError: The data cannot be read or do not fit, or the flavour needs none.
        ModelError: Nothing computes in integers.
    """
    stated = manifest.calibration
    if stated is None:
        request = FlavourRequest(manifest.flavour, data)
    else:
        options = CalibrationOptions(method=CalibrationMethod(stated.method), percentile=stated.percentile)
        request = FlavourRequest(manifest.flavour, data, stated.images, options)
    return calibrated_ranges(model, calibration_inputs(model, request), request.options)


def _text_findings(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    """What people read and run: as this version writes it, or not checked."""
    same = (folder / CARD).is_file() and (folder / CARD).read_bytes() == model_card(manifest).encode()
    why = (
        "says what the manifest says" if same else "is not as this version writes it; its figures may be any"
    )
    yield Finding("model card", same or None, why)

    ours = Path(bundle_files.__path__[0])
    programs = {name: name for name in SCRIPTS} | {
        name: own for name, own in SNIPPETS.items() if name in manifest.files
    }
    changed = [
        name
        for name, own in programs.items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != (ours / own).read_bytes()
    ]
    why = f"not those of this version: {', '.join(changed)}; read them before you run them"
    yield Finding("scripts", None if changed else True, why if changed else "those of this version")


def _archive_finding(path: Path, manifest: Manifest) -> Iterator[Finding]:
    """Whether the `.zip` beside a bundle's folder is the same bundle: the two are written one after the other."""
    archive = archive_path(path)
    if not path.is_dir() or not archive.is_file():
        return
    try:
        with open_bundle(archive) as bundle:
            other = bundle.manifest
    except InputError as error:
        yield Finding("archive", None, f"the one beside the folder cannot be read: {error}")
        return
    if other == manifest:
        yield Finding("archive", True, f"{archive.name} is the same bundle")
        return
    made, its = (m.environment.get("date", "an unknown date") for m in (manifest, other))
    yield Finding("archive", None, f"{archive.name} is another bundle, of {its}; this folder is of {made}")
