"""The checks of a bundle's `verify.py`, by this project's own copy of it; nothing of the bundle is executed."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from modelpress.export.errors import InputError, ModelError
from modelpress.export.handoff.bundle import Bundle
from modelpress.export.handoff.bundle_files import verify
from modelpress.export.handoff.bundle_files.verify import Finding
from modelpress.export.isolation.foreign import run_foreign
from modelpress.export.isolation.messages import Array, Facts
from modelpress.export.press.reading import open_artifact
from modelpress.toolkit.data.measured_set import Sections, own_set
from modelpress.toolkit.data.names import DATA_SETS
from modelpress.toolkit.data.registry import load_data_set

PRESS, ONNX = "model.press", "model.onnx"
MAX_OTHER_BYTES = (
    256 << 20
)  # of all files of a bundle beside the two models: scripts, and samples that are images
_PER_TENSOR = 1 << 12  # name, shape, and the nodes that a flavour expands it with
_SLACK = 1 << 20


def check_sizes(bundle: Bundle, scratch: Path, *, max_decoded_bytes: int) -> None:
    """Refuse a bundle whose files unpack to more than they need, before the large ones are unpacked.

    What the artifact declares bounds the ONNX model, which is that artifact in another form.

    Args:
        bundle: Open.
        scratch: A file that may be written, and is gone afterwards.
        max_decoded_bytes: Refuse an artifact whose tensors are larger in memory.

    Raises:
        InputError: A file is too large.
        ArtifactError: The artifact is damaged.
    """
    sizes = {name: facts.size_bytes for name, facts in bundle.manifest.files.items()}
    others = sum(size for name, size in sizes.items() if name not in (PRESS, ONNX))
    if others > MAX_OTHER_BYTES:
        raise InputError(
            f"{bundle.path}: its files beside the models take {others:,} bytes; expected up to {MAX_OTHER_BYTES:,}"
        )

    try:
        bundle.write(PRESS, scratch)
        with open_artifact(scratch, max_decoded_bytes=max_decoded_bytes) as artifact:
            decoded = sum(record.spec.n_bytes for record in artifact.records)
            most = 2 * decoded + 2 * artifact.graph.ByteSize() + _PER_TENSOR * len(artifact.records) + _SLACK
    except OSError as error:
        raise InputError(f"{scratch}: cannot be written: {error.strerror or error}") from error
    finally:
        scratch.unlink(missing_ok=True)

    if sizes.get(ONNX, 0) > most:
        raise InputError(
            f"{bundle.path}: {ONNX} takes {sizes[ONNX]:,} bytes, {PRESS} decodes to {decoded:,}: they are not one model"
        )


def checked(folder: Path, shown_as: str) -> None:
    """Hold a new bundle against its own claims; nothing is timed.

    Raises:
        ModelError: A check fails, or takes too long.
    """
    for finding in findings_of(folder):
        if finding.holds is False:
            raise ModelError(f"{shown_as}: {finding.check}: {finding.detail}")


def findings_of(
    folder: Path,
    *,
    data_dir: Path | None = None,
    factor: float | None = None,
    read_images: bool = False,
    own: Sections | None = None,
) -> list[Finding]:
    """What `verify.py` finds, in the process for foreign models.

    Args:
        folder: Of the bundle, unpacked.
        data_dir: Where the data set is that the accuracy was measured on.
        factor: Time the model, and judge the claimed latency within this factor.
        read_images: Read any data set that this project knows.
        own: Data of the user's own that the accuracy is measured on.

    Raises:
        ModelError: It takes too long.
    """
    asked = {
        "folder": str(folder.resolve()),
        "data_dir": None if data_dir is None else str(data_dir.absolute()),
        "factor": factor,
        "read_images": read_images,
        "own": dict(own or {}),
    }
    found, _ = run_foreign(_findings_job, asked)
    return [Finding(*finding) for finding in found["findings"]]


def _findings_job(facts: Facts, arrays: list[Array]) -> tuple[Facts, list[Array]]:
    data_dir = None if facts["data_dir"] is None else Path(facts["data_dir"])
    factor = facts["factor"]
    folder = Path(facts["folder"])
    read: dict[str, Any] = (
        {"read": images_of} if facts["read_images"] and not _brings_its_own(folder, data_dir) else {}
    )
    if facts["own"]:
        read = {"read": partial(own_examples, facts["own"], folder)}
    found = verify.findings(folder, data_dir, factor=factor, timed=factor is not None, **read)
    return {"findings": [list(finding) for finding in found]}, []


def _brings_its_own(folder: Path, data_dir: Path | None) -> bool:
    """Whether the test examples are in the bundle, and no others are named."""
    try:
        manifest = verify.parse_manifest((folder / verify.MANIFEST).read_bytes())
        return data_dir is None and manifest["claims"].get("test_data") is not None
    except (verify.Failed, OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # told by the checks themselves


def own_examples(own: Sections, folder: Path, name: str, data_dir: Path | None) -> tuple[Any, Any]:
    """Test inputs and targets of data of the user's own, split as the model says.

    Raises:
        Failed: They cannot be read, or are of several inputs.
    """
    try:
        metadata = json.loads((folder / verify.MANIFEST).read_bytes())["metadata"]
        data = own_set(own, metadata)
        if len(data.test.inputs) > 1 or len(data.test.targets) > 1:
            raise InputError(f"{data.name} has several inputs or targets; a bundle has one")
    except InputError as error:
        raise verify.Failed(str(error)) from error
    return np.asarray(data.test.first[:]), data.test.labels


def images_of(name: str, data_dir: Path | None) -> tuple[Any, Any]:
    """Test images and labels of any data set that this project reads, for `verify.findings`.

    Raises:
        NotChecked: It is unknown, or its files are not at hand.
        Failed: They are not what they should be.
    """
    if name not in DATA_SETS:
        raise verify.NotChecked(f"this data set cannot be read here; known are {', '.join(DATA_SETS)}")
    try:
        folder = None if data_dir is None else str(data_dir)
        images = load_data_set(name, folder=folder, test_only=True).test
    except InputError as error:
        if data_dir is not None:
            raise verify.Failed(str(error)) from error
        raise verify.NotChecked(f"not measured: {error}; give --data-dir DIR") from error
    return images.images, images.labels
