"""What is on disk when a writer is killed, races another, or runs out of space."""

import os
import subprocess
import sys
import textwrap

import pytest

from modelpress.export.press.reading import read_artifact
from modelpress.export.press.writing import encode_artifact
from tests.helpers.models import small_model, sparse_model
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")

_KILLED = """
    import os, random, signal, sys, time
    from pathlib import Path
    from modelpress.export.press.reading import read_artifact
    from modelpress.export.press.writing import write_artifact
    from tests.helpers.models import small_model, sparse_model

    path, rng = Path(sys.argv[1]), random.Random(0)
    models = [small_model(), sparse_model()]
    began = time.perf_counter()
    write_artifact(path, models[0])
    write_artifact(path, models[1])
    one_write = (time.perf_counter() - began) / 2
    seen = set()

    for writes in range(50):
        finished, finishing = os.pipe()
        child = os.fork()
        if child == 0:
            while True:
                for model in models:
                    write_artifact(path, model)
                    os.write(finishing, b".")
        os.close(finishing)

        # So many whole writes, however slow the machine is, and then some part of another.
        for _ in range(writes % 4):
            os.read(finished, 1)
        time.sleep(rng.uniform(0, one_write))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(finished)

        found = read_artifact(path)  # refuses anything torn
        seen.add(next(i for i, model in enumerate(models) if found.equals(model)))
        assert all(other.name.startswith(".model.press.") for other in path.parent.iterdir() if other != path)
    assert seen == {0, 1}
"""

_RACING = """
    import os, sys
    from pathlib import Path
    from modelpress.export.press.writing import write_artifact
    from tests.helpers.models import small_model, sparse_model

    path, children = Path(sys.argv[1]), []
    for model in (small_model(), sparse_model()):
        child = os.fork()
        if child == 0:
            for _ in range(20):
                write_artifact(path, model)
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
"""

_FULL = """
    import resource, signal, sys
    from pathlib import Path
    from modelpress.export.press.writing import write_artifact
    from modelpress.export.errors import InputError
    from tests.helpers.models import sparse_model

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    try:
        write_artifact(Path(sys.argv[1]), sparse_model())
    except InputError as error:
        sys.exit(str(error))
"""


def in_fresh_process(script, *arguments):
    """Runs without torch, so that forking is safe."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def test_a_writer_killed_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path):
    done = in_fresh_process(_KILLED, tmp_path / "model.press")
    assert done.returncode == 0, done.stderr


def test_two_writers_at_once_leave_one_whole_file_and_nothing_else(tmp_path):
    path = tmp_path / "model.press"
    done = in_fresh_process(_RACING, path)
    assert done.returncode == 0, done.stderr
    found = read_artifact(path)
    assert found.equals(small_model()) or found.equals(sparse_model())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("room", [0, 10, 100, 900])
def test_a_disk_that_fills_up_leaves_the_old_file(tmp_path, room):
    path = tmp_path / "model.press"
    assert len(encode_artifact(sparse_model())) > 900
    path.write_bytes(b"old")
    done = in_fresh_process(_FULL, path, room)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
