"""The machine and the versions that a measurement belongs to."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("modelpress", "numpy", "scipy", "scikit-learn", "onnx", "onnxruntime", "torch")
_INSTRUCTION_SETS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "asimddp",
    "i8mm",
    "sve",
)
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def describe_environment() -> dict[str, Any]:
    """Processor, instruction sets, cores, memory, load, thread settings, system, versions and the date (UTC), now.

    ``cores`` are those this process may run on, ``physical_cores`` those of the machine (None where it does not tell);
    ``load_average`` is the number of busy threads over the last 1, 5 and 15 minutes (None on Windows).
    """
    # x86 lists "flags", ARM "Features"
    fields = _processor()
    flags = set(fields.get("flags", fields.get("Features", "")).split())

    return {
        "cpu": fields.get("model name", platform.processor() or "unknown"),
        "instruction_sets": [name for name in _INSTRUCTION_SETS if name in flags],
        "cores": usable_cores(),
        "physical_cores": _physical_cores(),
        "memory_gib": _memory_gib(),
        "load_average": _load_average(),
        "thread_variables": {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ},
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: v for name in _PACKAGES if (v := _version(name))},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def busy_note(environment: dict[str, Any]) -> str:
    """A warning where the machine had other work when it was described; empty where it had not.

    Example:
        >>> busy_note({"cores": 4, "load_average": [1.9, 0.0, 0.0]})
        ''
        >>> busy_note({"cores": 4, "load_average": [2.4, 0.0, 0.0]})
        'the machine was busy before the start (load 2.4 on 4 cores): absolute latencies are too high'
    """
    load, cores = environment.get("load_average"), environment["cores"]
    if not load or load[0] <= cores / 2:
        return ""
    return (
        f"the machine was busy before the start (load {load[0]:.1f} on {cores} cores): "
        "absolute latencies are too high"
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_info() -> list[dict[str, str]]:
    """Fields of every logical processor; empty where the system has no such list."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return []

    blocks = info.read_text(encoding="utf-8", errors="replace").strip().split("\n\n")
    return [
        {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}
        for block in blocks
    ]


def _processor() -> dict[str, str]:
    fields: dict[str, str] = {}
    for block in _cpu_info():
        # the first processor wins; ARM lists some fields once, in a block of the whole board
        fields = {**block, **fields}
    return fields


def _physical_cores() -> int | None:
    blocks = [block for block in _cpu_info() if "processor" in block]
    # hyper-threads of a core share both numbers
    places = {(block["physical id"], block["core id"]) for block in blocks if "core id" in block}
    return len(places) or None


def _load_average() -> list[float] | None:
    try:
        return [round(load, 2) for load in os.getloadavg()]
    except (AttributeError, OSError):
        return None


def _memory_gib() -> float | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
