import re
import sys
from pathlib import Path

import numpy as np
import pytest

from modelpress.benchmarks.runtimes import versions as runtime_versions
from modelpress.benchmarks.runtimes.probe import installed_version, probe_runtime
from modelpress.benchmarks.runtimes.versions import check_versions
from modelpress.export.errors import InputError
from modelpress.export.onnx_flavours import FLAVOURS, emit
from modelpress.export.press.writing import write_artifact
from modelpress.toolkit.commands.bench.runtime import versions_of
from modelpress.toolkit.progress import Silent
from tests.helpers.models import small_model


def test_the_installed_runtime_does_what_the_capability_table_says():
    assert [probe.capability.name for probe in probe_runtime() if not probe.as_expected] == []


def test_what_a_flavour_writes_is_right_and_folded():
    for probe in probe_runtime():
        if probe.capability.used_by:
            assert probe.right
            assert probe.folded, probe.detail
            assert set(probe.capability.used_by) <= {*FLAVOURS, "int8", "int8-sparse"}
        assert probe.capability.used_by or probe.capability.instead


def test_an_older_runtime_is_expected_to_lack_what_came_later(monkeypatch):
    monkeypatch.setattr("modelpress.benchmarks.runtimes.probe.installed_version", lambda: (1, 15))
    surprising = [probe.capability.name for probe in probe_runtime() if not probe.as_expected]
    assert surprising == [p.capability.name for p in probe_runtime() if p.capability.since > (1, 15)]
    assert surprising
    assert installed_version() >= (1, 18)


@pytest.fixture
def this_environment(monkeypatch):
    """Stands for a freshly installed version: the one the tests run in."""
    monkeypatch.setattr(
        runtime_versions, "runtime_environment", lambda folder, version, release: Path(sys.executable)
    )


def written(folder, flavour="float"):
    path = folder / f"{flavour}.onnx"
    path.write_bytes(emit(small_model(), flavour=flavour).SerializeToString())
    return path


def test_the_same_version_gives_the_same_logits(tmp_path, this_environment):
    images = np.random.default_rng(0).standard_normal((70, 2, 6, 6), np.float32)
    steps = []
    checks = check_versions(
        [written(tmp_path), written(tmp_path, "sparse")], ["1.2.3"], images, on_step=steps.append
    )
    assert [(c.version, c.label_agreement, c.largest_difference, c.error) for c in checks] == [
        ("1.2.3", 1.0, 0.0, "")
    ] * 2
    assert steps == ["onnxruntime 1.2.3", "float.onnx", "sparse.onnx"]


def test_a_version_that_cannot_load_a_file_is_told_with_its_message(tmp_path, this_environment, monkeypatch):
    monkeypatch.setattr(runtime_versions, "_WORKER", "raise SystemExit('unknown operator')")
    images = np.zeros((1, 2, 6, 6), np.float32)
    (check,) = check_versions([written(tmp_path)], ["1.2.3"], images)
    assert (check.error, check.label_agreement) == ("unknown operator", None)


def test_a_version_that_does_not_exist_is_refused(tmp_path):
    images = np.zeros((1, 2, 6, 6), np.float32)
    for version in ("newest", "1", "1.15/../..", "1.15.1 onnx", "１.2"):
        with pytest.raises(InputError, match=f"'{version}' is no version of ONNX Runtime"):
            check_versions([written(tmp_path)], [version], images)
    with pytest.raises(InputError, match="no version of ONNX Runtime is named"):
        check_versions([written(tmp_path)], [], images)


def test_a_malformed_version_is_refused_before_anything_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime_versions, "runtime_environment", None)
    with pytest.raises(InputError, match="'newest' is no version"):
        versions_of([written(tmp_path)], ["1.20.0", "newest"], Silent())


def test_what_is_no_onnx_file_is_refused_by_name(tmp_path):
    write_artifact(tmp_path / "model.press", small_model())
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x08")
    for name, message in (
        ("missing.onnx", "cannot be read"),
        ("", "is a folder"),
        ("model.press", "is an artifact; expected an ONNX file"),
        ("bad.onnx", "ONNX Runtime cannot load the model"),
    ):
        path = tmp_path / name
        with pytest.raises(InputError, match=re.escape(f"{path}: {message}")):
            versions_of([path], ["1.20.0"], Silent())
