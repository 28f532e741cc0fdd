"""The same bits on a Cortex-M4 and a Cortex-M55, in qemu."""

import subprocess

import pytest

from modelpress.benchmarks.measures.firmware import missing_for_cores
from tests.export.firmware.test_operators import residual
from tests.helpers.firmware import Layers, make


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m55"])
def test_emulated_core_gives_the_expected_bits(core, tmp_path):
    missing = missing_for_cores()
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    made = make(tmp_path / "fw", residual(Layers()), n=4)
    done = subprocess.run(
        ["make", "-s", "-C", made.folder, f"run-{core}"], capture_output=True, text=True, check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert (done.returncode, lines[:2]) == (0, ["images 4", "equal 4"]), lines
