"""One measurement in one fresh process.

A process of its own shares no heap, no thread pool and no warmed-up code with what is measured beside it. The worker
gets a job as JSON in its only argument and prints its findings as one line of JSON; a failure is one line on stderr
and an exit code.
"""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

from modelpress.export.errors import ModelpressError
from modelpress.export.isolation.fresh import fresh_process

TIMEOUT_S = 600


def run_worker(module: str, path: Path, job: dict[str, Any], *, timeout_s: float = TIMEOUT_S) -> Any:
    """What a module of ours finds out about a file.

    Args:
        module: Run as ``python -P -m MODULE JOB``.
        path: The model that the job is about, for messages.
        job: What is measured; JSON.
        timeout_s: Seconds until it is given up.

    Raises:
        ModelpressError: The worker failed, died, or took too long; the file is named.
    """
    command = fresh_process("-m", module, json.dumps(job))

    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelpressError(
            f"{path}: timing took longer than {timeout_s:g} s; use smaller batches (--batch)"
        ) from error

    if done.returncode:
        raise ModelpressError(f"{path}: timing failed: {_reason(done)}")

    try:
        return json.loads(done.stdout.splitlines()[-1])  # whatever a library may have printed comes before
    except (IndexError, ValueError) as error:
        raise ModelpressError(f"{path}: timing failed: the process ended without a result") from error


def _reason(done: "subprocess.CompletedProcess[str]") -> str:
    if done.returncode < 0:
        number = -done.returncode
        known = {item.value: item.name for item in signal.Signals}
        hint = "; out of memory? Use smaller batches (--batch)" if known.get(number) == "SIGKILL" else ""
        return f"the process was ended by signal {number} ({known.get(number, 'unknown')}){hint}"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"
