"""The checks of a bundle's `verify.py`, by this project's own copy of it; nothing of the bundle is executed."""

from pathlib import Path

from modelpress.export.errors import InputError, ModelError
from modelpress.export.handoff.bundle import Bundle
from modelpress.export.handoff.bundle_files import verify
from modelpress.export.isolation.foreign import run_foreign
from modelpress.export.isolation.messages import Array, Facts
from modelpress.export.press.reading import open_artifact

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


def checked(folder: Path, shown_as: str) -> dict[str, str]:
    """What `verify.py` finds, without what it does not judge; nothing is timed.

    Raises:
        ModelError: A check fails, or takes too long.
    """
    found, _ = run_foreign(_findings_job, {"folder": str(folder.resolve())})
    steps = {}
    for check, holds, detail in found["findings"]:
        if holds is False:
            raise ModelError(f"{shown_as}: {check}: {detail}")
        if holds:
            steps[check] = detail
    return steps


def _findings_job(facts: Facts, arrays: list[Array]) -> tuple[Facts, list[Array]]:
    return {
        "findings": [list(finding) for finding in verify.findings(Path(facts["folder"]), None, timed=False)]
    }, []
