"""A model larger than one ONNX file holds, through the whole chain: packed, verified, unpacked, and compared.

Each command is a process of its own, whose processor time and highest resident memory the operating system tells.
"""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from modelpress.export.choices import Effort
from modelpress.export.errors import ModelError
from modelpress.export.graphs.source import open_onnx
from modelpress.export.isolation.fresh import fresh_process

_SEED = 0
_WIDTH = 5000  # of each layer: a matrix of 100 MB
_GIB = 1 << 30


@dataclass(frozen=True)
class LargeStep:
    """A command.

    Attributes:
        command: Its name.
        seconds: Processor time of its process and of those that it waited for.
        peak_mb: Highest resident memory of the largest of these, in 10**6 bytes.
        written_bytes: Of the files that it wrote.
    """

    command: str
    seconds: float
    peak_mb: float
    written_bytes: int


@dataclass(frozen=True)
class LargeModel:
    """What was measured.

    Attributes:
        n_tensors: Matrices of the model.
        tensor_bytes: Of each.
        model_bytes: Of the graph, and of the file beside it that holds them.
        steps: In their order.
        equal: Whether all tensors came back bit for bit, and the graph as it was.
    """

    n_tensors: int
    tensor_bytes: int
    model_bytes: int
    steps: tuple[LargeStep, ...]
    equal: bool


def large_model(
    folder: Path,
    *,
    n_tensors: int,
    effort: Effort,
    width: int = _WIDTH,
    note: Callable[[str], None] = lambda words: None,
) -> LargeModel:
    """Write a model of many matrices, carry it through the chain without loss, and compare what comes back.

    Args:
        folder: For all files: twice the model, and the artifact.
        n_tensors: Matrices.
        effort: Of packing.
        width: Of each matrix, square and float32.
        note: Is told each command before it runs.

    Raises:
        ModelError: A command failed, or the system does not tell the memory of others.
    """
    source, artifact, restored = (folder / name for name in ("large.onnx", "large.press", "restored.onnx"))
    note("write")
    write_large_model(source, n_tensors=n_tensors, width=width)
    model_bytes = source.stat().st_size + _data_of(source).stat().st_size
    limit = ("--max-decoded", str(-(-model_bytes // _GIB) + 1))
    patience = ("--timeout", "3600")

    commands: dict[str, tuple[list[Any], list[Path]]] = {
        "pack": (
            [source, "--lossless", "--effort", effort, "--allow-external-data", "-o", artifact],
            [artifact],
        ),
        "verify": ([artifact, *limit, *patience], []),
        "unpack": ([artifact, *limit, "-o", restored], [restored, _data_of(restored)]),
    }
    steps = []
    for command, (arguments, files) in commands.items():
        note(command)
        seconds, peak = _measured(command, *map(str, arguments))
        size = sum(path.stat().st_size for path in files if path.exists())
        steps.append(LargeStep(command, seconds, peak / 1e6, size))

    note("compare")
    equal = are_equal(source, restored)
    return LargeModel(n_tensors, 4 * width * width, model_bytes, tuple(steps), equal)


def write_large_model(path: Path, *, n_tensors: int, width: int) -> None:
    """Matrix products and rectifiers one after the other; the matrices lie in a file beside the graph."""
    drawn = np.random.default_rng(_SEED).standard_normal((width, width), np.float32) / np.float32(width**0.5)
    nodes, stored, previous = [], [], "x"
    with _data_of(path).open("wb") as data:
        for k in range(n_tensors):
            # drawn once: the factors make other numbers of them, which are no easier to pack
            matrix = drawn * np.float32(1 + k / n_tensors)
            entry = TensorProto(name=f"w{k}", data_type=TensorProto.FLOAT, dims=matrix.shape)
            entry.data_location = TensorProto.EXTERNAL
            place = {"location": _data_of(path).name, "offset": data.tell(), "length": matrix.nbytes}
            for key, value in place.items():
                entry.external_data.add(key=key, value=str(value))
            data.write(matrix.tobytes())
            stored.append(entry)

            result = "y" if k == n_tensors - 1 else f"r{k}"
            nodes += [
                helper.make_node("MatMul", [previous, f"w{k}"], [f"h{k}"]),
                helper.make_node("Relu", [f"h{k}"], [result]),
            ]
            previous = result

    shape: list[str | int | None] = ["n", width]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    graph = helper.make_graph(nodes, "large", [x], [y], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def _data_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.data")


def _measured(command: str, *arguments: str) -> tuple[float, int]:
    """Seconds of processor time and bytes of memory of a command of ours.

    Raises:
        ModelError: As for `large_model`.
    """
    if not hasattr(os, "wait4"):
        raise ModelError("this system does not tell the memory of another process; run it on Linux or macOS")

    process = subprocess.Popen(
        fresh_process("-m", "modelpress", command, *arguments, "-q"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said = _said_by(process)
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:  # Ctrl-C too: nothing goes on working on files that are deleted
        process.kill()
        process.wait()
        raise

    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ModelError(f"{command} failed: {' '.join(said.strip().splitlines()[-1:])}")

    unit = 1 if os.uname().sysname == "Darwin" else 1024  # of ru_maxrss
    return usage.ru_utime + usage.ru_stime, unit * usage.ru_maxrss


def _said_by(process: subprocess.Popen[str]) -> str:
    if process.stdout is None:
        return ""
    with process.stdout as pipe:
        return pipe.read()


def are_equal(source: Path, restored: Path) -> bool:
    """Whether two models hold the same graph and tensors, which are looked at one by one."""
    before, after = (open_onnx(path, allow_external_data=True) for path in (source, restored))
    if _bare(before.graph) != _bare(after.graph) or [*before.tensors] != [*after.tensors]:
        return False
    return all(
        np.asarray(before.tensors[name]).tobytes() == np.asarray(after.tensors[name]).tobytes()
        for name in before.tensors
    )


def _bare(graph: onnx.ModelProto) -> bytes:
    return graph.SerializeToString(deterministic=True)
