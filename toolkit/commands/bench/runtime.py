"""What the `bench runtime` command does."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from modelpress.benchmarks.environment import describe_environment
from modelpress.benchmarks.runtimes.engines import EngineCheck, check_engines, parsed_engines
from modelpress.benchmarks.runtimes.probe import probe_runtime
from modelpress.benchmarks.runtimes.versions import VersionCheck, check_versions, onnx_bytes, parsed_versions
from modelpress.benchmarks.suite import named
from modelpress.export.errors import InputError
from modelpress.export.runtime import open_session, single_input
from modelpress.toolkit.commands.console import answer_line, print_table
from modelpress.toolkit.progress import Progress

_RANDOM_INPUTS = 256


def capabilities() -> dict[str, Any]:
    """What the installed ONNX Runtime does with each way of storing a weight, tried out."""
    rows = [
        {
            "name": probe.capability.name,
            "opset": probe.capability.opset,
            "since": None if (since := probe.capability.since) is None else f"{since[0]}.{since[1]}",
            "right": probe.right,
            "folded": probe.folded,
            "as_expected": probe.as_expected,
            "operators": probe.detail,
            "used_by": list(probe.capability.used_by),
            "instead": probe.capability.instead,
        }
        for probe in probe_runtime()
    ]
    return {"onnxruntime": ort.__version__, "capabilities": rows, "environment": describe_environment()}


def show_capabilities(facts: dict[str, Any], *, wide: bool = False) -> None:
    """One table."""
    rows = [
        {
            "name": row["name"],
            "opset": str(row["opset"]),
            "since": row["since"] or "–",
            "right": "yes" if row["right"] else "no",
            "folded": "–" if not row["right"] else "at load" if row["folded"] else "every inference",
            "used": ", ".join(row["used_by"]) or row["instead"],
        }
        for row in facts["capabilities"]
    ]
    headings = {
        "name": "weights stored as",
        "opset": "opset",
        "since": "since",
        "right": "runs right",
        "folded": "decoded",
        "used": "used by, or what is used instead",
    }
    print_table(
        f"ONNX Runtime {facts['onnxruntime']}, CPU",
        rows,
        headings,
        narrow=[{key: title for key, title in headings.items() if key not in ("opset", "used")}],
        text=("folded", "used"),
        wide=wide,
    )

    for row in facts["capabilities"]:
        if not row["as_expected"]:
            answer_line(f"{row['name']}: not as the table says: {row['operators']}")


def versions_of(paths: list[Path], versions: list[str], progress: Progress) -> dict[str, Any]:
    """Files in several versions of ONNX Runtime, beside the installed one, on seeded random inputs.

    Raises:
        InputError: A file cannot be read or does not run, its input has several dynamic axes, or a version is none or
            cannot be installed.
    """
    parsed_versions(versions)
    inputs = [_random_inputs(path, _RANDOM_INPUTS) for path in paths]
    if len({images.shape for images in inputs}) != 1:
        raise InputError("the files must have one input shape, with the batch as the only dynamic axis")

    progress.start("versions", len(versions) * (1 + len(paths)))
    try:
        checks = check_versions(paths, versions, inputs[0], on_step=progress.advance)
    finally:
        progress.finish()

    return _checked(checks, _RANDOM_INPUTS)


def engines_of(paths: list[Path], engines: list[str], n_inputs: int, progress: Progress) -> dict[str, Any]:
    """Files in other engines, beside the installed ONNX Runtime, on seeded random inputs.

    Raises:
        InputError: A file cannot be read or does not run, its input has several dynamic axes, or an engine is unknown.
    """
    wanted = parsed_engines(engines)
    inputs = {path: _random_inputs(path, n_inputs) for path in paths}

    progress.start("engines", len(wanted) * len(paths))
    try:
        checks = check_engines(paths, wanted, inputs, on_step=progress.advance)
    finally:
        progress.finish()

    return _checked(checks, n_inputs)


def _checked(checks: Sequence[VersionCheck | EngineCheck], n_inputs: int) -> dict[str, Any]:
    """The facts of a run, beside the installed runtime."""
    return {
        "reference": ort.__version__,
        "inputs": n_inputs,
        "checks": [asdict(check) for check in checks],
        "environment": describe_environment(),
    }


def _random_inputs(path: Path, n_inputs: int) -> npt.NDArray[np.float32]:
    data = onnx_bytes(path)
    with named(path):
        shape = single_input(open_session(data)).shape[1:]
    if not all(isinstance(size, int) for size in shape):
        raise InputError(f"{path}: input of shape {shape}; expected the batch as the only dynamic axis")
    return np.random.default_rng(0).standard_normal((n_inputs, *shape), np.float32)


def show_engines(facts: dict[str, Any], *, wide: bool = False) -> None:
    """One table, and below it the errors, which are too long for a cell."""
    rows = [
        {
            "engine": f"{check['engine'].split('==')[0]} {check['version']}".strip(),
            "file": check["file"],
            "bytes": f"{check['size_bytes']:,}",
            "labels": "–" if check["error"] else str(check["differing_labels"]),
            "apart": "–" if check["error"] else f"{check['relative_error']:.1e}",
        }
        for check in facts["checks"]
    ]
    headings = {
        "engine": "engine",
        "file": "file",
        "bytes": "bytes",
        "labels": "differing labels",
        "apart": "logits apart, of their spread",
    }
    narrow = {key: headings[key] for key in ("engine", "file")} | {"labels": "labels", "apart": "apart"}
    title = f"against ONNX Runtime {facts['reference']}, {facts['inputs']} random inputs"
    print_table(title, rows, headings, narrow=[narrow], text=("file",), wide=wide)
    for check in facts["checks"]:
        if check["error"]:
            answer_line(f"{check['file']} in {check['engine']}: {check['error']}")


def show_versions(facts: dict[str, Any], *, wide: bool = False) -> None:
    """One table, and below it the errors, which are too long for a cell."""
    rows = [
        {
            "version": check["version"],
            "file": check["file"],
            "labels": "–" if check["label_agreement"] is None else f"{check['label_agreement']:.2%}",
            "differing": "–" if check["label_agreement"] is None else str(check["differing_labels"]),
            "largest": "–" if check["largest_difference"] is None else f"{check['largest_difference']:.1e}",
        }
        for check in facts["checks"]
    ]
    headings = {
        "version": "ONNX Runtime",
        "file": "file",
        "labels": "same label",
        "differing": "differing, ties apart",
        "largest": "largest logit difference",
    }
    narrow = {**headings, "differing": "differing", "largest": "logits apart"}
    title = f"against {facts['reference']}, {facts['inputs']} random inputs"
    print_table(title, rows, headings, narrow=[narrow], text=("file",), wide=wide)
    for check in facts["checks"]:
        if check["error"]:
            answer_line(f"{check['file']} in {check['version']}: {check['error']}")
