"""Do files give the same answers in other versions of ONNX Runtime? Each version gets an environment of its own."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modelpress.benchmarks.audits.fidelity import compare_logits
from modelpress.export.errors import InputError, ModelError
from modelpress.export.files.inputs import read_input
from modelpress.export.isolation.fresh import fresh_process
from modelpress.export.runtime import open_session, run_batched
from modelpress.export.sessions import is_artifact

_NUMPY_2_SINCE = (1, 19)  # earlier wheels were built for NumPy 1
_VERSION = re.compile(r"(\d+)\.(\d+)(\.\d+)*((a|b|rc|\.post|\.dev)\d+)*", re.ASCII)
_INSTALL_TIMEOUT_S, _RUN_TIMEOUT_S = 900, 300
_WORKER = """
import sys
import numpy as np
import onnxruntime as ort

options = ort.SessionOptions()
options.log_severity_level = 4
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
images = np.load(sys.argv[2])
name = session.get_inputs()[0].name
parts = [session.run(None, {name: images[i : i + 64]})[0] for i in range(0, len(images), 64)]
np.save(sys.argv[3], np.concatenate(parts))
"""


@dataclass(frozen=True)
class VersionCheck:
    """One file in one version.

    Attributes:
        version: Of ONNX Runtime.
        file: Its path as given.
        label_agreement: Fraction of inputs with the label of the installed version; None if it did not run.
        differing_labels: Inputs whose labels differ though the logits are no tie.
        largest_difference: Of any logit, from the installed version's.
        error: Why it did not run; empty if it did.
    """

    version: str
    file: str
    label_agreement: float | None = None
    differing_labels: int = 0
    largest_difference: float | None = None
    error: str = ""


def check_versions(
    paths: list[Path],
    versions: list[str],
    images: npt.NDArray[np.float32],
    *,
    on_step: Callable[[str], None] = lambda what: None,
) -> list[VersionCheck]:
    """Run ONNX files in several versions of ONNX Runtime, fetched from the package registry.

    Args:
        paths: ONNX files with one input and one output of logits.
        versions: As pip knows them, "1.15.1" for example.
        images: Inputs, shape ``(n, ...)`` as the models expect.
        on_step: Told what was done: once per version and once per version and file.

    Raises:
        InputError: A file cannot be read or does not run in the installed version, or a version is none or cannot be
            installed.
    """
    parsed = parsed_versions(versions)
    expected = {path: run_batched(open_session(onnx_bytes(path)), images, batch=64) for path in paths}
    checks = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "images.npy", images)

        for version, release in parsed.items():
            python = runtime_environment(folder / version, version, release)
            on_step(f"onnxruntime {version}")
            for path in paths:
                checks.append(_check(python, version, path, folder, expected[path]))
                on_step(path.name)

    return checks


def parsed_versions(versions: list[str]) -> dict[str, tuple[int, int]]:
    """Major and minor number by version, each version once.

    Raises:
        InputError: There is none, or a text is no version.

    Example:
        >>> parsed_versions(["1.15.1", "1.23.0rc1"])
        {'1.15.1': (1, 15), '1.23.0rc1': (1, 23)}
    """
    if not versions:
        raise InputError("no version of ONNX Runtime is named; expected for example 1.15.1")

    found = {}
    for version in versions:
        match = _VERSION.fullmatch(version)
        if match is None:
            raise InputError(f"{version!r} is no version of ONNX Runtime; expected for example 1.15.1")
        found[version] = (int(match[1]), int(match[2]))

    return found


def onnx_bytes(path: Path) -> bytes:
    """What an ONNX file holds.

    Raises:
        InputError: It cannot be read, or is an artifact.
    """
    if is_artifact(path):
        raise InputError(f"{path}: is an artifact; expected an ONNX file, as modelpress onnx writes it")
    return read_input(path)


def runtime_environment(folder: Path, version: str, release: tuple[int, int]) -> Path:
    """The interpreter of a fresh environment that holds this version."""
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    # older wheels were built against NumPy 1
    packages = [f"onnxruntime=={version}", *(["numpy<2"] if release < _NUMPY_2_SINCE else [])]
    _call(fresh_process("-m", "venv", str(folder)), version)
    _call(
        [str(python), "-P", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
        version,
    )
    return python


def _call(command: list[str], version: str) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"onnxruntime {version}: installing took longer than {error.timeout:.0f} s"
        ) from error
    if done.returncode:
        raise InputError(f"onnxruntime {version} cannot be installed here: {last_line(done.stderr)}")


def _check(
    python: Path, version: str, path: Path, folder: Path, expected: npt.NDArray[np.float32]
) -> VersionCheck:
    output = folder / "logits.npy"
    # logits of the version before must not pass for those of this one
    output.unlink(missing_ok=True)
    command = [str(python), "-P", "-c", _WORKER, str(path), str(folder / "images.npy"), str(output)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_RUN_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return VersionCheck(version, str(path), error=f"took longer than {_RUN_TIMEOUT_S} s")

    if done.returncode:
        return VersionCheck(version, str(path), error=last_line(done.stderr))

    try:
        record = compare_logits(
            expected, np.load(output), reference_name="the installed version", candidate_name=version
        )
    except ModelError as error:
        return VersionCheck(version, str(path), error=str(error))

    return VersionCheck(
        version, str(path), record.label_agreement, record.differing_labels, record.largest_difference
    )


def last_line(text: str) -> str:
    """The last line that says anything."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
