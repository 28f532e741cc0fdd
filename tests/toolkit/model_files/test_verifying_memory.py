"""What `verify` finds in a large model, tensor by tensor, is what it finds with all of it in memory."""

import tempfile
import tracemalloc
from pathlib import Path

import pytest

from modelpress.benchmarks.codes.large_model import write_large_model
from modelpress.export import runtime
from modelpress.export.isolation.foreign import foreign_work
from modelpress.toolkit import api
from modelpress.toolkit.model_files import verifying

N_TENSORS, WIDTH = 8, 700  # 2 MB each


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    write_large_model(folder / "m.onnx", n_tensors=N_TENSORS, width=WIDTH)
    api.pack(folder / "m.onnx", folder / "m.press", lossless=True, effort="fast", allow_external_data=True)
    return folder / "m.press"


def test_a_large_model_is_verified_in_the_memory_of_a_few_tensors(artifact, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with foreign_work():
        at_once = verifying.verification(artifact)
        monkeypatch.setattr(verifying, "_HELD_BYTES", 1)
        monkeypatch.setattr(runtime, "_MOST_SENT", 1)
        tracemalloc.start()
        try:
            one_by_one = verifying.verification(artifact)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert one_by_one == at_once
    assert all(step.holds for step in one_by_one)
    assert peak < N_TENSORS * 4 * WIDTH * WIDTH
    assert not [*tmp_path.iterdir()]  # neither the weights that were run nor what was packed again


def test_a_temporary_folder_without_room_is_said(artifact, monkeypatch):
    monkeypatch.setattr(verifying, "_HELD_BYTES", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(Path(artifact, "no folder")))
    with pytest.raises(verifying.InputError, match="another folder named by TMPDIR"):
        verifying.verification(artifact)
