"""A few of the kills of `python -m tests.kills`, and what it finds where the writing is not what it should be."""

import json
import subprocess
import sys
import textwrap

import pytest

from tests.helpers.paths import ROOT

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kills are for Linux")

_LEFT = "temporaries.sweep = lambda path: None"
_TORN = """
    @contextmanager
    def in_place(path):
        with path.open("w+b") as file:
            yield file
    atomic.temporary_file = in_place
"""
_SCRIPT = """
    import sys
    from contextlib import contextmanager
    from modelpress.export.files import atomic, temporaries
    from tests import kills
    {broken}
    sys.argv = ["kills", "--kills", "{kills}", "--only", "{only}"]
    kills.main()
"""


def killed(kills, *, only="", broken=""):
    """In a fresh process, so that forking is safe."""
    script = _SCRIPT.format(broken=broken.strip().replace("\n    ", "\n    "), kills=kills, only=only)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def test_every_writing_command_killed_in_its_writing_leaves_old_or_new_and_no_litter_after_the_next_run():
    code, out = killed(36)
    assert code == 0, out
    assert "36 kills of seed 0: 0 wrong" in out


@pytest.mark.parametrize(("broken", "found"), [(_LEFT, "the next run leaves"), (_TORN, "torn")])
def test_a_way_of_writing_that_is_not_atomic_is_found(broken, found):
    code, out = killed(12, only="report -o report.md", broken=broken)
    assert code == 1
    assert found in out


def test_the_recorded_run_is_whole():
    record = json.loads((ROOT / "benchmarks" / "results" / "kills.json").read_bytes())
    assert (record["kills"], record["wrong"]) == (1000, [])
    assert all(facts["kills"] >= 50 for facts in record["commands"].values())
