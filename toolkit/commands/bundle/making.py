"""What `modelpress bundle` does: write the model, measure it, collect and check; nothing here needs torch."""

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from modelpress.benchmarks.environment import describe_environment
from modelpress.benchmarks.subjects.given import NOTHING, Given
from modelpress.export.choices import DEFAULT_MAX_DECODED_BYTES
from modelpress.export.errors import InputError
from modelpress.export.files.atomic import atomic_writer
from modelpress.export.files.places import check_not_around, check_not_read
from modelpress.export.handoff import bundle_files
from modelpress.export.handoff.bill_of_materials import BILL, bill_of_materials
from modelpress.export.handoff.bundle import (
    check_target,
    facts_of_files,
    seal_folder,
    staged_folder,
    write_archive,
)
from modelpress.export.handoff.bundle_files import verify
from modelpress.export.handoff.manifest import (
    AccuracyClaim,
    Calibration,
    Claims,
    Contract,
    Manifest,
    MetricClaim,
    Port,
)
from modelpress.export.isolation.foreign import foreign_work
from modelpress.export.press.reading import open_artifact
from modelpress.export.quantized import QuantizedModel
from modelpress.export.runtime import open_session
from modelpress.toolkit.commands.bundle.checking import ONNX, PRESS, checked
from modelpress.toolkit.commands.bundle.claims import (
    accuracy_claim,
    choose_samples,
    compression_of,
    contract_of,
    latency_claim,
    logits_of,
    write_samples,
)
from modelpress.toolkit.commands.bundle.examples import (
    all_outputs,
    examples_as_calls,
    metric_claim,
    write_test_data,
)
from modelpress.toolkit.commands.bundle.flavour_choice import WrittenModel, write_smallest
from modelpress.toolkit.commands.bundle.model_card import model_card
from modelpress.toolkit.commands.bundle.porting import (
    images_as_calls,
    reference_calls,
    reference_of,
    write_operators,
    write_snippets,
)
from modelpress.toolkit.commands.bundle.recognising import exists
from modelpress.toolkit.data.data_set import DataSet
from modelpress.toolkit.data.measured_set import MeasuredSet
from modelpress.toolkit.data.png_file import PNG_CHANNELS
from modelpress.toolkit.output_folder import check_output_file, file_facts, read_manifest, without_local_paths
from modelpress.toolkit.progress import Progress

CARD, REQUIREMENTS = "MODEL_CARD.md", "requirements.txt"
SCRIPTS = ("run.py", "verify.py", "image_data.py", "expand.py")
FIRMWARE = "firmware"
EXITS = "model-exits.onnx"  # of run.py, which leaves early where it is there
UNSPECIFIED = "unspecified"
_OLD_OPSET, _OLD_RUNTIME = 17, "1.15"  # the oldest ONNX Runtime known to run models up to this opset right
# for image files; the last one for Python 3.9 mishandles a format that run.py does not open
_PILLOW = 'pillow>=12.1.1; python_version >= "3.10"\npillow>=11.3; python_version < "3.10"\n'


WriteModel = Callable[[Path, QuantizedModel], Mapping[str, Any]]
AddFirmware = Callable[[Path, QuantizedModel], object]
WriteExits = Callable[[Path, QuantizedModel, str], object]


@dataclass(frozen=True, kw_only=True)
class BundleRequest:
    """What goes into a bundle.

    Attributes:
        flavour: Name of what `write_model` writes, as recorded; None for the smallest that runs everywhere.
        write_model: Writes `model.onnx` of a decoded artifact to a path; what there is to say of it.
        calibration: How ranges of activations are chosen, for integer flavours.
        given: What the user says of inputs.
        max_decoded_bytes: Refuse an artifact whose tensors are larger in memory.
        data: What accuracy and samples come from.
        license: SPDX expression of the model's licence.
        n_samples: Test images, or other examples, to hand over.
        test_data: Hand over all test examples, so that the figures can be measured again without any other data.
        archive: Write a `.zip` beside the folder.
        add_firmware: Writes firmware of a decoded artifact into a new folder.
        write_exits: Writes what leaves early, in the flavour of `model.onnx`.
    """

    flavour: str | None
    write_model: WriteModel
    calibration: Calibration | None = None
    given: Given = NOTHING
    max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES
    data: MeasuredSet = field(default_factory=MeasuredSet)
    license: str = UNSPECIFIED
    n_samples: int = 20
    test_data: bool = False
    archive: bool = True
    overwrite: bool = False
    add_firmware: AddFirmware | None = None
    write_exits: WriteExits | None = None


def make_bundle(artifact: Path, target: Path, request: BundleRequest, progress: Progress) -> Manifest:
    """Write the hand-off folder of an artifact, and its `.zip`: both whole, or neither.

    Raises:
        InputError: Artifact, data set or target are not usable.
        ModelError: The finished bundle does not hold what it claims.
    """
    check_target(target, overwrite=request.overwrite)
    archive = archive_path(target)
    check_not_around(target, artifact)
    if request.archive:
        check_not_read(archive, [artifact])
        check_output_file(archive, overwrite=request.overwrite)
    elif exists(archive):
        progress.note(f"{archive} is there already and stays as it is: it belongs to another bundle")

    if request.license == UNSPECIFIED:
        progress.note("the licence is recorded as unspecified (--license SPDX)")
    with ExitStack() as stack:
        stack.enter_context(foreign_work())
        file = stack.enter_context(atomic_writer(archive)) if request.archive else None
        folder = stack.enter_context(staged_folder(target, overwrite=request.overwrite))
        manifest = _fill(folder, artifact, target.name, request, progress)
        if file is not None:
            write_archive(file, folder, name=target.name)

    return manifest


def archive_path(target: Path) -> Path:
    """Where the `.zip` of a bundle's folder is.

    Example:
        >>> archive_path(Path("out/handoff")).as_posix()
        'out/handoff.zip'
    """
    return target.with_name(f"{target.name}.zip")


def _fill(folder: Path, artifact: Path, name: str, request: BundleRequest, progress: Progress) -> Manifest:
    """Every file of the bundle, measured and checked."""
    environment = describe_environment()  # before our own work counts as load
    with open_artifact(artifact, max_decoded_bytes=request.max_decoded_bytes) as opened:
        model = opened.model()
    shutil.copyfile(artifact, folder / PRESS)
    calibration = request.calibration
    if request.flavour is None:
        written = write_smallest(folder / ONNX, model)
    else:
        made = request.write_model(folder / ONNX, model)
        written = WrittenModel(request.flavour)
        if calibration is not None:  # the rule that was taken, where several were tried
            calibration = calibration.model_copy(update={"method": made["calibration"]["method"]})
    if request.write_exits is not None:
        request.write_exits(folder / EXITS, model, written.flavour)
    if request.add_firmware is not None:
        request.add_firmware(folder / FIRMWARE, model)
    serialised = (folder / ONNX).read_bytes()
    session = open_session(serialised)
    metadata = dict(sorted(session.get_modelmeta().custom_metadata_map.items()))
    images = request.data.load(
        artifact,
        metadata,
        check=lambda images: None,
        without=lambda why: progress.note(f"no accuracy is claimed and there are no samples: {why}"),
    )
    contract = contract_of(session, metadata, images, progress)
    calls = reference_calls(serialised, session, request.given, progress)
    figures: dict[str, Any] = {"accuracy": None, "samples": None}
    if images is not None and contract is not None:
        found, own_calls = _figures(folder, session, contract, metadata, images, request, progress)
        figures |= found
        calls = replace(calls, **own_calls)
    reference = reference_of(folder, model, session, written.flavour, calls, progress)
    latency = None
    if contract is not None or calls.feeds is not None:
        feeds = None if contract is not None and contract.input_dtype == "float32" else calls.feeds
        latency = latency_claim(folder / ONNX, session, feeds, environment, progress)

    claims = Claims(**figures, latency=latency, reference=reference)
    _write_programs(folder, serialised, ports=reference is not None)
    bill = bill_of_materials(
        name=name,
        license_=request.license,
        versions=environment["versions"],
        requirements=(folder / REQUIREMENTS).read_text(encoding="utf-8"),
        files=facts_of_files(folder),
    )
    (folder / BILL).write_bytes(bill)

    run = run_beside(artifact)
    facts: dict[str, Any] = {
        "name": name,
        "license": request.license,
        "flavour": written.flavour,
        "why_flavour": written.why,
        "calibration": calibration,
        "metadata": metadata,
        "compression": compression_of(model),
        "recipe": run.get("recipe", {}),
        "dataset": _dataset(metadata, run, claims.accuracy or claims.metric),
        "environment": environment,
        "claims": claims,
        "inputs": [Port(**verify.port_of(node)) for node in session.get_inputs()],
        "outputs": [Port(**verify.port_of(node)) for node in session.get_outputs()],
        "contract": contract,
    }
    card = model_card(Manifest(**facts, files=facts_of_files(folder)))
    (folder / CARD).write_text(card, encoding="utf-8")
    manifest = Manifest(**facts, files=facts_of_files(folder))
    seal_folder(folder, manifest)
    checked(folder, "the new bundle")

    return manifest


def _figures(
    folder: Path,
    session: ort.InferenceSession,
    contract: Contract,
    metadata: dict[str, str],
    data: DataSet,
    request: BundleRequest,
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is claimed of the test examples, and calls of some of them in the place of others."""
    for note in data.notes:
        progress.note(note)
    facts: dict[str, Any] = {"test_data": write_test_data(folder, data)} if request.test_data else {}
    if not data.classifies:
        outputs = all_outputs(session, data, metadata)
        return {**facts, "metric": metric_claim(outputs, data)}, examples_as_calls(contract, data, metadata)

    logits = logits_of(session, metadata, data)
    facts["accuracy"] = accuracy_claim(logits, data)
    if not data.of_images or data.test.first.shape[1] not in PNG_CHANNELS:
        return facts, examples_as_calls(contract, data, metadata)

    chosen = choose_samples(logits, data.test.labels, request.n_samples)
    if len(chosen) < request.n_samples:
        progress.note(f"{len(chosen)} samples: the model classifies no more test images right")
    facts["samples"] = write_samples(folder, contract, data.test, logits, chosen)
    return facts, images_as_calls(contract, data, chosen) if len(chosen) else {}


def _write_programs(folder: Path, model: bytes, *, ports: bool) -> None:
    """What runs the model, checks it, or makes it fit another runtime, and what that needs."""
    for script in SCRIPTS:
        shutil.copyfile(Path(bundle_files.__path__[0], script), folder / script)
    (folder / REQUIREMENTS).write_text(requirements(model), encoding="utf-8")
    write_operators(folder, model)
    if ports:
        write_snippets(folder)


def run_beside(artifact: Path) -> dict[str, Any]:
    """Recipe and data set from the manifest of the run that made an artifact, if that lies beside it.

    Paths are cut to names: they are those of one machine.
    """
    try:
        manifest = read_manifest(artifact.parent) or {}
        if manifest["files"][artifact.name] != file_facts(artifact):
            return {}
        recipe = without_local_paths(dict(manifest["recipe"]), artifact.parent)
        dataset = dict(manifest["dataset"])
    except (InputError, KeyError, TypeError, ValueError, AttributeError):
        return {}  # somebody else's manifest.json
    return {"recipe": recipe, "dataset": dataset}


def _dataset(
    metadata: dict[str, str], run: dict[str, Any], accuracy: AccuracyClaim | MetricClaim | None
) -> dict[str, str]:
    """Name and fingerprint of the test images, from the best source there is."""
    if accuracy is not None:
        return {"name": accuracy.dataset, "fingerprint": accuracy.fingerprint}
    known = {"name": metadata.get("modelpress.dataset"), **run.get("dataset", {})}
    return {key: known[key] for key in ("name", "fingerprint") if known.get(key)}


def requirements(model: bytes) -> str:
    """What the scripts of a bundle need; for a model of a newer opset, the ONNX Runtime that it was measured in."""
    opsets = [opset.version for opset in onnx.load_from_string(model).opset_import if not opset.domain]
    runtime = _OLD_RUNTIME if max(opsets, default=0) <= _OLD_OPSET else ort.__version__
    return f"numpy>=1.22\nonnxruntime>={runtime}\n{_PILLOW}"
