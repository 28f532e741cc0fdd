"""C compilers, and what the tests build with them: skipped, with a reason, where one is missing."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from modelpress.benchmarks.measures.firmware import has_c_headers
from tests.helpers.paths import ROOT

CORE, READER, TESTS = ROOT / "export" / "coding", ROOT / "export" / "press" / "c", ROOT / "tests" / "c"
SOURCES = (*sorted(CORE.glob("press*.c")), *sorted(READER.glob("*.c")))
STRICT = ("-std=c99", "-ffp-contract=off", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror")
INCLUDES = tuple(f"-I{folder}" for folder in (CORE, READER, TESTS))


@dataclass(frozen=True)
class Target:
    """A machine to build for.

    Attributes:
        emulator: What runs its programs here; none for this machine.
    """

    compiler: str
    emulator: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    def command(self) -> list[str]:
        """The compiler; skips the test where it or the emulator is missing."""
        for program in (self.compiler, *self.emulator[:1]):
            if shutil.which(program) is None:
                pytest.skip(f"needs {program}")
        if not _has_c_headers(self.compiler):
            pytest.skip(f"needs the C library of {self.compiler}, a package of its own")
        return [self.compiler, *self.flags]


_has_c_headers = cache(has_c_headers)


HOST = Target("cc")
TARGETS = {
    "gcc": Target("gcc"),
    "clang": Target("clang"),
    "small": Target("gcc", flags=("-DPRESS_SMALL",)),
    "32 bits": Target("i686-linux-gnu-gcc", flags=("-static",)),
    "aarch64": Target("aarch64-linux-gnu-gcc", ("qemu-aarch64",), ("-static",)),
    "big-endian": Target("powerpc64-linux-gnu-gcc", ("qemu-ppc64",), ("-static",)),
}


def build(target: Target, out: Path, sources: Sequence[Path], *flags: str) -> Path:
    """Compile and link, warnings being errors; skips the test where the compiler is missing."""
    command = [*target.command(), *STRICT, *INCLUDES, *flags, "-o", str(out), *map(str, (*sources, *SOURCES))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out
