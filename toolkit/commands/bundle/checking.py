"""The checks of a bundle's `verify.py`, by this project's own copy of it; nothing of the bundle is executed."""

from pathlib import Path

from modelpress.export.errors import ModelError
from modelpress.export.handoff.bundle_files import verify
from modelpress.export.isolation.foreign import run_foreign
from modelpress.export.isolation.messages import Array, Facts


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
