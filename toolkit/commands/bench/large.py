"""What `bench large` does."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modelpress.benchmarks.codes.large_model import large_model
from modelpress.benchmarks.environment import describe_environment
from modelpress.export.choices import Effort
from modelpress.toolkit.commands.console import answer_line, print_table
from modelpress.toolkit.progress import Progress

_COLUMNS = {
    "command": "",
    "seconds": "processor seconds",
    "peak": "MB of memory, at most",
    "written": "bytes written",
}


def measure_large(n_tensors: int, effort: Effort, progress: Progress) -> dict[str, Any]:
    """Carry a model through the chain, in a folder that is deleted.

    Raises:
        ModelError: A command of the chain fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = large_model(Path(folder), n_tensors=n_tensors, effort=effort, note=progress.stage)
    return {**asdict(found), "effort": effort, "environment": describe_environment()}


def show_large(facts: dict[str, Any]) -> None:
    """Print what was measured."""
    rows = [
        {
            "command": step["command"],
            "seconds": f"{step['seconds']:.1f}",
            "peak": f"{step['peak_mb']:,.0f}",
            "written": f"{step['written_bytes']:,}",
        }
        for step in facts["steps"]
    ]
    print_table(f"{facts['n_tensors']} matrices of {facts['tensor_bytes']:,} bytes", rows, _COLUMNS)
    words = "equal bit for bit" if facts["equal"] else "NOT equal"
    answer_line(f"{facts['model_bytes']:,} bytes; what came back is {words}")
