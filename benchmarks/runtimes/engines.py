"""Do files give the same answers in other engines than the installed ONNX Runtime? Each runs in its own process."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from modelpress.benchmarks.runtimes.versions import (
    last_line,
    onnx_bytes,
    parsed_versions,
    runtime_environment,
)
from modelpress.export.errors import InputError
from modelpress.export.isolation.fresh import fresh_process
from modelpress.export.runtime import open_session, run_batched

Inputs = npt.NDArray[np.float32]
NODE_MODULES = "MODELPRESS_NODE_MODULES"  # the folder that npm installed onnxruntime-web into
_TIMEOUT_S = 600
_RUNTIME = "onnxruntime=="
_TIE = 1e-3  # of the spread of the logits: labels that differ by less are no difference
_HEAD = """
import sys
import numpy as np
path, source, target = sys.argv[1:4]
x = np.load(source)
"""
_TAIL = """
np.save(target, np.concatenate(parts))
print("version", version)
"""
_OPENVINO = """
import openvino
version = openvino.__version__.split("-")[0]
core = openvino.Core()
model = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
parts = [np.array(model(x[i : i + 1])[0]) for i in range(len(x))]
"""
_OPENCV = """
import cv2
version = cv2.__version__
parts = []
for i in range(len(x)):
    net = cv2.dnn.readNetFromONNX(path) if not i else net
    net.setInput(x[i : i + 1])
    parts.append(np.array(net.forward()))
"""
_REFERENCE = """
import onnx
from onnx.reference import ReferenceEvaluator
version = onnx.__version__
model = ReferenceEvaluator(path)
name = model.input_names[0]
parts = [model.run(None, {name: x[i : i + 1]})[0] for i in range(len(x))]
"""
_RUNTIME_WORKER = """
import onnxruntime
version = onnxruntime.__version__
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
model = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
name = model.get_inputs()[0].name
parts = [model.run(None, {name: x[i : i + 1]})[0] for i in range(len(x))]
"""
_WEB = """
const fs = require("fs"), path = require("path");
const [modules, file, source, target, shape] = process.argv.slice(1);
const web = path.join(modules, "onnxruntime-web");
const ort = require(web);
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
(async () => {
  const dims = JSON.parse(shape), size = dims.slice(1).reduce((a, b) => a * b, 1);
  const bytes = fs.readFileSync(source);
  const x = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const session = await ort.InferenceSession.create(new Uint8Array(fs.readFileSync(file)));
  const parts = [];
  for (let i = 0; i < dims[0]; i++) {
    const one = new ort.Tensor("float32", x.slice(i * size, (i + 1) * size), [1, ...dims.slice(1)]);
    const found = await session.run({ [session.inputNames[0]]: one });
    parts.push(Buffer.from(Float32Array.from(found[session.outputNames[0]].data).buffer));
  }
  fs.writeFileSync(target, Buffer.concat(parts));
  console.log("version " + JSON.parse(fs.readFileSync(path.join(web, "package.json"))).version);
  process.exit(0);
})().catch((error) => { console.error(String(error)); process.exit(1); });
"""
_PYTHON_WORKERS: Mapping[str, str] = MappingProxyType(
    {"openvino": _OPENVINO, "opencv": _OPENCV, "reference": _REFERENCE}
)
_WEB_NAME = "onnxruntime-web"
ENGINES = (*_PYTHON_WORKERS, _WEB_NAME)


@dataclass(frozen=True)
class EngineCheck:
    """One file in one engine.

    Attributes:
        engine: As asked for.
        version: As the engine tells; empty if it did not run.
        file: Its name.
        size_bytes: Of the file.
        differing_labels: Inputs whose labels differ though the logits are no tie; None if it did not run.
        relative_error: Root of squared difference to the installed ONNX Runtime over squared spread of its logits.
        error: Why it did not run; empty if it did.
    """

    engine: str
    version: str
    file: str
    size_bytes: int
    differing_labels: int | None = None
    relative_error: float | None = None
    error: str = ""


def parsed_engines(names: list[str]) -> list[str]:
    """The engines, each once.

    Raises:
        InputError: One is unknown, or there is none.

    Example:
        >>> parsed_engines(["openvino", "onnxruntime==1.15.1", "openvino"])
        ['openvino', 'onnxruntime==1.15.1']
    """
    unique = list(dict.fromkeys(names))
    for name in unique:
        if name.startswith(_RUNTIME):
            parsed_versions([name.removeprefix(_RUNTIME)])
        elif name not in ENGINES:
            raise InputError(
                f"engine {name!r} is unknown; choose among {', '.join(ENGINES)} and {_RUNTIME}VERSION"
            )

    if not unique:
        raise InputError(f"no engine is named; choose among {', '.join(ENGINES)} and {_RUNTIME}VERSION")
    return unique


def check_engines(
    paths: list[Path],
    engines: list[str],
    inputs: Mapping[Path, Inputs],
    *,
    on_step: Callable[[str], None] = lambda what: None,
) -> list[EngineCheck]:
    """Run ONNX files in other engines, and compare with the installed ONNX Runtime.

    Args:
        paths: ONNX files with one input and one output of logits.
        engines: Of `ENGINES`, or ``onnxruntime==VERSION``, which is fetched from the package registry.
        inputs: Of each file, shape ``(n, ...)``; they are run one by one.
        on_step: Told what was done, once per engine and file.

    Raises:
        InputError: An engine is unknown, or a file does not run in the installed ONNX Runtime.
    """
    wanted = parsed_engines(engines)
    expected = {path: run_batched(open_session(onnx_bytes(path)), inputs[path], batch=1) for path in paths}
    checks = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for engine in wanted:
            prefix = _command(engine, folder)
            for path in paths:
                checks.append(
                    _check(engine, prefix, path, folder, inputs=inputs[path], expected=expected[path])
                )
                on_step(f"{engine} {path.name}")

    return checks


def _command(engine: str, folder: Path) -> list[str]:
    """What runs a file: a program, to which paths are added."""
    if engine == _WEB_NAME:
        return [shutil.which("node") or "node", "-e", _WEB, os.environ.get(NODE_MODULES, "node_modules")]
    if engine in _PYTHON_WORKERS:
        return fresh_process("-c", _HEAD + _PYTHON_WORKERS[engine] + _TAIL)

    version = engine.removeprefix(_RUNTIME)
    python = runtime_environment(folder / version, version, parsed_versions([version])[version])
    # isolated: packages of this environment are not for that one
    return [str(python), "-I", "-c", _HEAD + _RUNTIME_WORKER + _TAIL]


def _check(
    engine: str, prefix: list[str], path: Path, folder: Path, *, inputs: Inputs, expected: Inputs
) -> EngineCheck:
    is_web = engine == _WEB_NAME
    source, target = (folder / f"{stem}.{'bin' if is_web else 'npy'}" for stem in ("inputs", "logits"))
    # logits of another engine must not pass for those of this one
    target.unlink(missing_ok=True)
    size = path.stat().st_size
    if is_web:
        inputs.astype("<f4").tofile(source)
    else:
        np.save(source, inputs)

    command = [*prefix, str(path.resolve()), str(source), str(target)]
    command += [json.dumps(inputs.shape)] if is_web else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except FileNotFoundError:
        return EngineCheck(engine, "", path.name, size, error=f"{prefix[0]} is not installed")
    except subprocess.TimeoutExpired:
        return EngineCheck(engine, "", path.name, size, error=f"took longer than {_TIMEOUT_S} s")
    if done.returncode or not target.exists():
        return EngineCheck(engine, "", path.name, size, error=_reason(done.stderr))

    version = last_line(done.stdout).removeprefix("version ")
    found = np.fromfile(target, "<f4") if is_web else np.load(target)
    if found.size != expected.size or not np.isfinite(found).all():
        return EngineCheck(engine, version, path.name, size, error="other logits in number, or not finite")

    differing, error = compared(expected, found.reshape(expected.shape))
    return EngineCheck(engine, version, path.name, size, differing, error)


def compared(expected: Inputs, found: Inputs) -> tuple[int, float]:
    """Labels that differ, ties apart; and the error, as a part of how far logits lie apart.

    Args:
        expected: Shape ``(n, classes)``.
        found: Same shape.

    Example:
        >>> compared(np.float32([[0, 2], [1, 0]]), np.float32([[0, 2], [0, 1]]))
        (1, 0.852803)
    """
    spread = float(np.sqrt(np.square(expected - expected.mean()).mean()))
    error = float(np.sqrt(np.square(found - expected).mean()))
    rows = np.arange(len(expected))
    lost = expected.max(axis=1) - expected[rows, found.argmax(axis=1)]
    return int((lost > _TIE * spread).sum()), float(f"{error / spread:.6g}") if spread else error


def _reason(text: str) -> str:
    """The line of a traceback, or of an engine's own report, that tells most."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "rror" in line or "failed" in line or "not implemented" in line]
    return (telling or lines or ["no message"])[-1][:300]
