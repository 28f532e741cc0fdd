"""Machines that share no folder: each has a mount namespace of its own, in which the driver's folder is empty."""

import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from itertools import takewhile
from tempfile import TemporaryDirectory

import pytest

from tests.toolkit.sweeps.small_sweep import PATIENCE_S, driver, written

ALONE = ["unshare", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
pytestmark = [
    pytest.mark.skipif(
        find_spec("optuna") is None or find_spec("ray") is None,
        reason="needs the extra sweep: Optuna and Ray",
    ),
    pytest.mark.skipif(
        shutil.which("unshare") is None or subprocess.run([*ALONE, "true"], check=False).returncode != 0,
        reason="needs mount namespaces: unshare, and a kernel that allows them",
    ),
]


@contextmanager
def machine(hidden, *options):
    """A node of a cluster that finds a folder empty and keeps its temporary files to itself."""
    hide = 'mount -t tmpfs none "$0" && exec "$@"'
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    with TemporaryDirectory(prefix="mp", dir="/tmp") as temporary:  # paths of sockets hold 107 bytes
        process = subprocess.Popen(
            [*ALONE, "sh", "-c", hide, str(hidden), *start, *options],
            env={**os.environ, "TMPDIR": temporary, "RAY_worker_niceness": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            said = list(takewhile(lambda line: "Ray runtime started" not in line, process.stdout))
            assert process.poll() is None, "".join(said)
            yield
        finally:
            process.kill()  # and with it all that runs in its namespace
            process.communicate()


def free_ports(n):
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]


def test_trials_run_on_machines_that_see_no_folder_of_the_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # where Ray keeps the token of its clusters
    here = tmp_path / "driver"
    here.mkdir()
    config = written(here, network=tmp_path, epochs=1)
    port, client = free_ports(2)
    head = [
        "--head",
        f"--port={port}",
        f"--ray-client-server-port={client}",
        "--num-cpus=0",
        "--include-dashboard=false",
    ]

    with ExitStack() as machines:
        machines.enter_context(machine(here, *head))
        for _ in range(2):
            join = [f"--address=127.0.0.1:{port}", "--num-cpus=1"]
            machines.enter_context(machine(here, *join))

        with driver(config, "--address", f"ray://127.0.0.1:{client}", "--json") as process:
            out, err = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 0, err
    record = json.loads(out)
    assert [trial["state"] for trial in record["trials"]] == ["complete", "complete"]
    for trial in (0, 1):
        assert (here / "out" / "trials" / f"{trial:04d}" / "model.press").is_file()
