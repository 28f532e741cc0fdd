"""What is not collected where an extra is missing."""

from importlib.util import find_spec

# these import what the extra `sweep` brings, so that their examples cannot run without it
_OF_SWEEP = ("cluster", "driver", "memory", "outcome", "overhead")

collect_ignore_glob = (
    []
    if find_spec("optuna") and find_spec("ray")
    else [f"src/modelpress/toolkit/sweeps/{name}.py" for name in _OF_SWEEP]
)
