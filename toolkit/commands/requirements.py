"""What a command needs beside its options."""

import os
from importlib.util import find_spec

from modelpress.export.errors import InputError
from modelpress.export.extras import how_to_install


def need_torch(*, together: bool = False) -> None:
    """Make sure that a command can train.

    Args:
        together: Whether it shares its work between the processes of torchrun.

    Raises:
        InputError: torch is not installed, or torchrun started a command that works alone.
    """
    if not together and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "several processes can share the work of `run` only: start this command without torchrun"
        )
    try:
        import torch  # noqa: F401 - its presence is the question
    except ImportError as error:
        raise InputError(
            f"this command trains or reads PyTorch checkpoints: {how_to_install('train')}"
        ) from error


def need_sweep() -> None:
    """Make sure that recipes can be searched.

    Raises:
        InputError: Optuna or Ray is not installed.
    """
    missing = [name for name in ("optuna", "ray") if find_spec(name) is None]
    if missing:
        raise InputError(f"a sweep needs {' and '.join(missing)}: {how_to_install('sweep')}")
