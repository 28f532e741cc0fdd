"""Resident memory of this process, in bytes."""

import sys
from contextlib import suppress
from pathlib import Path


def highest_memory(*, reset: bool = False) -> int | None:
    """Highest resident memory so far, in bytes; with `reset`, counted from now on. None where it is not to be had.

    Linux reports it in KiB (``VmHWM``), macOS in bytes and the other BSDs in KiB (``ru_maxrss``). Only Linux forgets;
    elsewhere a reset changes nothing, so that a difference is never more than what was really added.
    """
    if reset:
        with suppress(OSError):
            # 5: the kernel counts the peak from now on
            Path("/proc/self/clear_refs").write_text("5")

    status = Path("/proc/self/status")
    if status.is_file():  # what getrusage reports on Linux may be the parent's
        lines = status.read_text().splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)

    try:
        import resource
    except ImportError:  # Windows
        return None

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else 1024 * highest
