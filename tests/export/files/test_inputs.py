import os
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelpress.benchmarks.records import read_results
from modelpress.benchmarks.runtimes.versions import onnx_bytes
from modelpress.benchmarks.subjects.given import ArrayFile, read_array
from modelpress.benchmarks.subjects.model_file import open_model
from modelpress.export.errors import InputError
from modelpress.export.files.inputs import open_input, read_input
from modelpress.export.graphs.source import open_onnx
from modelpress.export.handoff.bundle import open_bundle
from modelpress.export.press.reading import open_artifact
from modelpress.export.sessions import load_session
from modelpress.toolkit import api
from modelpress.toolkit.data.calibration_data import load_calibration
from modelpress.toolkit.model_files.verifying import verification
from modelpress.toolkit.recipe import load_recipe
from modelpress.toolkit.studies.sparse_series.tables import load_problem

# everything that opens a file which a user names, and a name that it takes
READERS = {
    "open_input": (open_input, "file"),
    "open_artifact": (open_artifact, "m.press"),
    "open_onnx": (open_onnx, "m.onnx"),
    "open_model": (open_model, "m.onnx"),
    "load_session": (load_session, "m.onnx"),
    "open_bundle": (open_bundle, "b.zip"),
    "read_results": (read_results, "results.json"),
    "load_recipe": (load_recipe, "recipe.yaml"),
    "calibration": (lambda path: load_calibration(path, metadata={}), "x.npy"),
    "input arrays": (lambda path: read_array(ArrayFile(path)), "x.npy"),
    "onnx_bytes": (onnx_bytes, "m.onnx"),
    "tables": (lambda path: load_problem(path, path), "x.npy"),
    "csv tables": (lambda path: load_problem(path, path), "x.csv"),
    "api.pack": (lambda path: api.pack(path, path.with_name("out.press")), "m.onnx"),
    "api.open_session": (api.open_session, "m.onnx"),
    "api.inspect": (api.inspect, "m.press"),
    "verify against": (None, "m.onnx"),
}


@contextmanager
def impatient(seconds=60):
    """Whatever still waits then fails: a pipe has no end."""

    def stop(*_):
        raise TimeoutError("still waiting for the pipe")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, reader, artifact_of_one_tensor):
    read, name = READERS[reader]
    if read is None:
        read = lambda path: verification(artifact_of_one_tensor, against=path)  # noqa: E731
    pipe = tmp_path / name
    os.mkfifo(pipe)
    with impatient(), pytest.raises(InputError, match=rf"{name}: is no regular file \(a pipe\)"):
        read(pipe)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no devices on this system")
@pytest.mark.parametrize("reader", READERS)
def test_a_device_without_end_is_refused(tmp_path, reader, artifact_of_one_tensor):
    read, name = READERS[reader]
    if read is None:
        read = lambda path: verification(artifact_of_one_tensor, against=path)  # noqa: E731
    link = tmp_path / name
    link.symlink_to("/dev/zero")
    with impatient(), pytest.raises(InputError, match=rf"{name}: is no regular file \(a device\)"):
        read(link)


@pytest.fixture(scope="module")
def artifact_of_one_tensor(tmp_path_factory):
    from modelpress.export.press.writing import write_artifact
    from tests.helpers.models import small_model

    path = tmp_path_factory.mktemp("artifact") / "m.press"
    write_artifact(path, small_model())
    return path


def test_a_folder_a_missing_file_and_a_name_with_a_nul_are_refused(tmp_path):
    for path, why in (
        (tmp_path, "is a folder"),
        (tmp_path / "missing", "No such file"),
        (Path("a\0b"), "null"),
        (tmp_path / ("n" * 300), "too long"),
    ):
        with pytest.raises(InputError, match=f"cannot be read: .*{why}"):
            open_input(path)


def test_no_more_is_read_than_is_taken(tmp_path):
    (tmp_path / "file").write_bytes(bytes(11))
    assert read_input(tmp_path / "file", most=11) == bytes(11)
    with pytest.raises(InputError, match="more than 10 bytes"):
        read_input(tmp_path / "file", most=10)
