"""What a folder of firmware takes, built and run: flash, memory with the stack, instructions, equal bits."""

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import InputError

TIMEOUT_S = 3600
VALUE_UNITS = 65536  # to 1, of outputs in integers
CORES = {
    "cortex-m4": 40.0,
    "cortex-m55": 31.25,
}  # instructions in a tick of the board's clock, under -icount shift=0
_ON_HOST = ("make", "cc", "valgrind")
_FOR_CORES = ("make", "arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm")
_HEADERS = "libnewlib-dev"  # of the C library for bare Arm; packages of the compiler only recommend it
_NUMBER = re.compile(r"^(images|equal|ticks|stack) (\d+)$", re.MULTILINE)
_REFS = re.compile(r"Collected : (\d+)")


@dataclass(frozen=True)
class FirmwareInput:
    """What enters, from the folder's report."""

    size: int
    scale: np.float32
    zero: int

    def codes(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Bytes of inputs, one to a row."""
        steps = np.rint(np.clip(values / self.scale, -self.zero, 255 - self.zero)) + self.zero
        return np.asarray(steps, np.uint8).reshape(len(values), self.size)


class FirmwareFolder:
    """A folder that `modelpress firmware` wrote; builds go elsewhere.

    Raises:
        InputError: It is none, or cannot be built.
    """

    def __init__(self, folder: Path, build: Path) -> None:
        self.folder, self.build = folder, build
        try:
            self.report: dict[str, Any] = json.loads((folder / "report.json").read_text())
            entering = self.report["input"]
            size = int(np.prod(entering["shape"]))
            self.input = FirmwareInput(size, np.float32(entering["scale"]), int(entering["zero"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder} is no folder that `modelpress firmware` wrote") from error

    def make(self, target: str) -> str:
        """What `make` says on both of its outputs."""
        command = ["make", "-s", "-C", str(self.folder), f"BUILD={self.build}", target]
        done = _run(command)
        if done.returncode:
            raise InputError(f"{self.folder}: make {target} fails: {done.stderr.strip()[-500:]}")
        return done.stdout + done.stderr

    def values(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """What the host build gives for each row."""
        kind = np.dtype(np.int32 if self.report["arithmetic"] == "integer" else np.float32)
        self.make(f"{self.build}/host_test")
        path = self.build / "codes"
        path.write_bytes(codes.tobytes())
        done = subprocess.run(
            [self.build / "host_test", path], capture_output=True, check=False, timeout=TIMEOUT_S
        )
        if done.returncode:
            raise InputError(f"{self.folder}: the host build fails with {done.returncode}")
        found = np.frombuffer(done.stdout, kind).reshape(len(codes), -1)
        return np.asarray(found / VALUE_UNITS if kind == np.int32 else found, np.float64)

    def as_given(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Values as they come out: integers stand for the nearest multiple of their unit."""
        wide = values.astype(np.float64)
        return np.rint(wide * VALUE_UNITS) / VALUE_UNITS if self.report["arithmetic"] == "integer" else wide


def measure_firmware(folder: Path) -> dict[str, Any]:
    """Flash, memory, instructions on each core and on this machine; None where a tool is missing.

    Raises:
        InputError: The folder is no firmware, or a build or test fails.
    """
    with tempfile.TemporaryDirectory() as build:
        firmware = FirmwareFolder(folder, Path(build))
        facts = {key: value for key, value in firmware.report.items() if key != "layers"}
        return {
            **facts,
            "cores": {core: _on_core(firmware, core) for core in CORES},
            "host_instructions": _host_instructions(firmware),
        }


def missing_tools() -> list[str]:
    """What is not installed, without which something is not measured."""
    return list(dict.fromkeys([*_not_found(_ON_HOST), *missing_for_cores()]))


def missing_for_cores() -> list[str]:
    """What is not installed, without which no program is built for a Cortex-M and run in qemu."""
    missing = _not_found(_FOR_CORES)
    if "arm-none-eabi-gcc" not in missing and not has_c_headers("arm-none-eabi-gcc"):
        missing.append(_HEADERS)
    return missing


def has_c_headers(compiler: str) -> bool:
    """Whether a compiler that is installed finds the headers of a C library, a package of its own."""
    program = b"#include <string.h>\n"
    done = subprocess.run([compiler, "-E", "-x", "c", "-"], input=program, capture_output=True, check=False)
    return done.returncode == 0


def _not_found(programs: tuple[str, ...]) -> list[str]:
    return [program for program in programs if shutil.which(program) is None]


def _on_core(firmware: FirmwareFolder, core: str) -> dict[str, Any] | None:
    if missing_for_cores():
        return None

    said = dict(_NUMBER.findall(firmware.make(f"run-{core}")))
    firmware.make(core)
    sizes = (
        _run(["arm-none-eabi-size", str(firmware.build / f"{core}-model.elf")]).stdout.splitlines()[1].split()
    )
    stack = int(said["stack"])
    return {
        "flash": int(sizes[0]) + int(sizes[1]),
        "stack": stack,
        "memory": firmware.report["arena_bytes"] + stack,
        "instructions": round(int(said["ticks"]) * CORES[core]),
        "images": int(said["images"]),
        "equal": int(said["equal"]),
    }


def _host_instructions(firmware: FirmwareFolder) -> int | None:
    """Of one inference more."""
    if _not_found(_ON_HOST):
        return None
    firmware.make(f"{firmware.build}/host_test")
    counts = []
    for n in (1, 2):
        path = firmware.build / "codes"
        path.write_bytes(np.random.default_rng(0).bytes(firmware.input.size) * n)
        out = f"--callgrind-out-file={firmware.build / 'callgrind'}"
        done = _run(["valgrind", "--tool=callgrind", out, str(firmware.build / "host_test"), str(path)])
        counts.append(int(_REFS.findall(done.stderr)[0]))
    return counts[1] - counts[0]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=TIMEOUT_S
        )
    except FileNotFoundError as error:
        raise InputError(f"{command[0]} is not installed; firmware is built and run with it") from error


def agreement(
    found: npt.NDArray[np.floating], expected: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """How outputs compare with ONNX Runtime's, and how right both are.

    Example:
        >>> one = np.eye(2, dtype=np.float32)
        >>> agreement(one, one, np.array([0, 0]))["equal_bits"]
        2
    """
    best, same = found.argmax(axis=1), expected.argmax(axis=1)
    return {
        "images": len(found),
        "equal_bits": int((found == expected).all(axis=1).sum()),
        "top1_agreement": float((best == same).mean()),
        "top1": float((best == labels).mean()),
        "top1_onnx_runtime": float((same == labels).mean()),
    }
