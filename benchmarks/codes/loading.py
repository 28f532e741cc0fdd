"""How long it takes from a file to a session of ONNX Runtime that is ready to run.

Measured twice: in one process that has loaded every file before, and in processes of their own, once each, where
nothing is warm. All times are of one thread and medians of ways that take turns.
"""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from modelpress.benchmarks.measures.worker import TIMEOUT_S, run_worker
from modelpress.export.choices import EFFORTS
from modelpress.export.errors import ModelError
from modelpress.export.isolation.fresh import fresh_process
from modelpress.export.onnx_flavours import write_onnx
from modelpress.export.press.writing import write_artifact
from modelpress.export.quantized import QuantizedModel
from modelpress.export.sessions import load_session

_WORKER = "modelpress.benchmarks.codes.load_worker"
_ONNX_ALONE = """
import sys, time, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(time.process_time())
"""
_ARTIFACT = """
import sys, time, modelpress
modelpress.open_session(sys.argv[1], threads=1)
print(time.process_time())
"""


@dataclass(frozen=True)
class LoadTime:
    """One way to a session that is ready to run.

    Attributes:
        size_bytes: Of the file.
        milliseconds: In a process that has done it before.
        ratio: The same, to the float32 ONNX file.
        cpu_ratio: The same of the processor's time, which other work on the machine disturbs less.
        fresh_cpu_ratio: Of the processor's time in a process of its own, to the float32 ONNX file; what both import
            (NumPy, onnx, ONNX Runtime, this package) is not counted.
        process_ratio: Of the whole process by the clock, from its start to its end: what a program takes that does
            nothing but load, its imports included. The float32 file is loaded with onnxruntime alone.
        process_cpu_ratio: Of the processor's time that the same process has taken once its session is ready.
    """

    name: str
    size_bytes: int
    milliseconds: float
    ratio: float
    cpu_ratio: float
    fresh_cpu_ratio: float
    process_ratio: float
    process_cpu_ratio: float


def load_times(
    model: QuantizedModel,
    folder: Path,
    *,
    rounds: int,
    fresh_rounds: int,
    on_round: Callable[[str], None] | None = None,
) -> list[LoadTime]:
    """Load a float32 ONNX file and artifacts of every effort.

    Args:
        model: What is loaded.
        folder: For the files.
        rounds: How often the ways take turns in this process, after one to warm up.
        fresh_rounds: How often in processes of their own, likewise.
        on_round: Called with a name whenever it has been loaded.
    """
    onnx_file = folder / "float32.onnx"
    write_onnx(onnx_file, model, flavour="float")
    files = {"float32 ONNX file": onnx_file}
    for effort in EFFORTS:
        files[f"artifact, effort {effort}"] = folder / f"{effort}.press"
        write_artifact(folder / f"{effort}.press", model, effort=effort)

    wall, cpu = _in_turns(files, _load_here, rounds, on_round)
    process, process_cpu, fresh = _in_turns(files, _load_apart, fresh_rounds, on_round)
    first = next(iter(files))
    return [
        LoadTime(
            name,
            path.stat().st_size,
            milliseconds=1e3 * wall[name],
            ratio=wall[name] / wall[first],
            cpu_ratio=cpu[name] / cpu[first],
            fresh_cpu_ratio=fresh[name] / fresh[first],
            process_ratio=process[name] / process[first],
            process_cpu_ratio=process_cpu[name] / process_cpu[first],
        )
        for name, path in files.items()
    ]


def _in_turns(
    files: dict[str, Path],
    measure: Callable[[Path], tuple[float, ...]],
    rounds: int,
    on_round: Callable[[str], None] | None,
) -> list[dict[str, float]]:
    """Medians of each of the times that a measurement gives."""
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in files}
    for turn in range(rounds + 1):
        for name, path in files.items():
            found = measure(path)
            if turn:  # the first one warms up
                times[name].append(found)
            if on_round is not None:
                on_round(name)
    medians = {name: tuple(map(median, zip(*found, strict=True))) for name, found in times.items()}
    return [dict(zip(medians, each, strict=True)) for each in zip(*medians.values(), strict=True)]


def _load_here(path: Path) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    began, began_cpu = time.perf_counter(), time.process_time()
    load_session(path, threads=1)
    return time.perf_counter() - began, time.process_time() - began_cpu


def _load_apart(path: Path) -> tuple[float, float, float]:
    """Seconds of a whole process by the clock and of the processor; and of that, for loading alone, in another.

    Raises:
        ModelError: The process fails.
    """
    program = _ONNX_ALONE if path.suffix == ".onnx" else _ARTIFACT
    began = time.perf_counter()
    done = subprocess.run(
        fresh_process("-c", program, str(path)),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    elapsed = time.perf_counter() - began
    if done.returncode:
        raise ModelError(f"{path}: loading it in a process of its own failed: {done.stderr[-300:]}")
    alone = run_worker(_WORKER, path, {"path": str(path)})["cpu_seconds"]
    return elapsed, float(done.stdout), float(alone)
