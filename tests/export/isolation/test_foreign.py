import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from modelpress.export.errors import InputError, ModelError
from modelpress.export.isolation.current import foreign_process
from modelpress.export.isolation.foreign import JobFailed, foreign_work, run_foreign
from tests.export.isolation import jobs
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="looks at processes through /proc"
)


@pytest.fixture(autouse=True, scope="module")
def jobs_are_found():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # a process of ours looks into no other folder
        yield


@pytest.fixture(scope="module")
def process(jobs_are_found):
    with foreign_work(timeout_s=60) as process:
        yield process


def is_alive(pid):
    """Whether a process runs; one that is dead and not waited for does not."""
    status = Path(f"/proc/{pid}/stat")
    with suppress(FileNotFoundError):
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def gone(pid, seconds=20):
    end = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not is_alive(pid)


def test_a_job_runs_in_a_process_of_its_own_and_arrays_keep_type_and_shape(process):
    given = [
        np.arange(6, dtype=np.int16).reshape(2, 3),
        np.float32(1.5).reshape(()),
        np.empty((0, 4), np.uint8),
    ]
    facts, found = process.run(jobs.doubled, {"k": 1}, given)
    assert facts["k"] == 1
    assert facts["pid"] != os.getpid()
    for array, before in zip(found, given, strict=True):
        assert (array.dtype, array.shape) == (before.dtype, before.shape)
        np.testing.assert_array_equal(array, 2 * before)


def test_outside_of_the_block_a_job_runs_where_it_is_asked_for():
    found = []
    thread = Thread(
        target=lambda: found.append((foreign_process(), run_foreign(jobs.doubled, {}, [np.ones(2)])))
    )
    thread.start()  # a thread is inside of no block
    thread.join()
    assert found[0][0] is None
    assert found[0][1][0]["pid"] == os.getpid()


def test_errors_of_ours_keep_their_kind_and_others_their_text(process):
    with pytest.raises(InputError, match="not this one"):
        process.run(jobs.refused, {}, [])
    with pytest.raises(JobFailed, match="no error of ours"):
        process.run(jobs.broken, {}, [])


def test_what_a_library_prints_is_no_answer(process, capfd):
    assert process.run(jobs.talkative, {}, []) == ({}, [])


@pytest.mark.parametrize("job", [jobs.endless, jobs.deaf])
def test_a_job_that_never_ends_is_ended_and_the_next_one_runs(tmp_path, job):
    with foreign_work(timeout_s=1) as process:
        process.start("tests.export.isolation.jobs")
        pid = process._process.pid
        with pytest.raises(ModelError, match=r"took longer than 1 s and was stopped.*--timeout"):
            process.run(job, {"tell": str(tmp_path / "pid")}, [])
        assert gone(pid)
        process.timeout_s = 60
        assert process.run(jobs.doubled, {}, [])[0]["pid"] != pid
        pid = process._process.pid
    assert gone(pid)


def test_a_crash_is_an_error_that_names_the_signal(process):
    with pytest.raises(ModelError, match="died: SIGSEGV"):
        process.run(jobs.crashing, {}, [])
    assert process.run(jobs.doubled, {}, [])[0]


def test_a_job_that_takes_too_much_memory_is_refused_it(process):
    process.run(jobs.greedy, {"bytes": 1 << 20}, [], memory_bytes=512 << 20)
    with pytest.raises(JobFailed, match=r"allocate|MemoryError"):
        process.run(jobs.greedy, {"bytes": 1 << 30}, [], memory_bytes=512 << 20)
    process.run(jobs.greedy, {"bytes": 1 << 30}, [])  # and the limit is gone


def test_the_process_dies_with_whoever_asked_even_in_the_middle_of_a_job(tmp_path):
    script = (
        "from modelpress.export.isolation.foreign import foreign_work\n"
        "from tests.export.isolation import jobs\n"
        "with foreign_work() as process:\n"
        "    process.run(jobs.doubled, {}, [])\n"  # what starting takes is not counted
        "    process.timeout_s = 0.5\n"
        f"    process.run(jobs.deaf, {{'tell': {str(tmp_path / 'pid')!r}}}, [])\n"
    )
    asking = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert asking.poll() is None
        time.sleep(0.01)
    asking.send_signal(signal.SIGKILL)
    asking.wait()
    assert gone(int((tmp_path / "pid").read_text()), seconds=30)


def test_a_block_inside_another_uses_its_process_unless_it_asks_for_another_time(process):
    with foreign_work() as inner:
        assert inner is process
    with foreign_work(timeout_s=7) as other:
        assert other is not process
        assert other.timeout_s == 7
