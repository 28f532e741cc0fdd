"""The compiled codes, built anew with other limits than a reader's."""

import importlib.util
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.helpers.c_compilers import CORE, READER, SOURCES


def built_core(folder: Path, *macros: str):
    """The module `_core` with these macros defined; skips the test where there is no compiler."""
    place = folder / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    command = [
        *(compiler, "-shared", "-fPIC", "-std=c99", "-O1", f"-I{sysconfig.get_path('include')}"),
        *(f"-D{macro}" for macro in macros),
        *(f"-I{folder}" for folder in (CORE, READER)),
        *map(str, (*sorted(CORE.glob("_core*.c")), *SOURCES)),
        *("-o", str(place)),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no working C compiler: {error}")

    spec = importlib.util.spec_from_file_location("_core", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
