"""Bundles that unpack to more than they should: bounded by what they declare, and read in blocks."""

import tracemalloc
import zipfile

import pytest

from modelpress.export.errors import InputError
from modelpress.export.handoff.bundle import facts_of_files, open_bundle, seal_folder
from modelpress.export.handoff.manifest import Claims, Compression, Contract, LatencyClaim, Manifest
from modelpress.export.onnx_flavours import write_onnx
from modelpress.export.press.writing import write_artifact
from modelpress.toolkit.commands.bundle import checking, making
from modelpress.toolkit.commands.bundle.verifying import verify_bundle
from tests.helpers.graph_builder import INPUT, GraphBuilder

ZEROS = 64 << 20
LATENCY = LatencyClaim(batch=1, threads=1, p50_ms=1, p90_ms=1, samples=1, machine="")


@pytest.fixture
def folder(tmp_path):
    """A bundle without samples, whose sums fit whatever is in it."""
    folder = tmp_path / "handoff"
    folder.mkdir()
    builder = GraphBuilder("relu", (2,))
    model = builder.finish(builder.relu(INPUT), n_outputs=2, metadata={})
    write_artifact(folder / "model.press", model)
    write_onnx(folder / "model.onnx", model, flavour="float")
    return folder


def zipped(folder, **larger):
    """The bundle as an archive; files given by name, with dots as __, are filled up with zeros."""
    for name, size in larger.items():
        with (folder / name.replace("__", ".")).open("ab") as file:
            file.truncate(size)
    manifest = Manifest(
        name="handoff",
        license="MIT",
        flavour="float",
        metadata={},
        compression=Compression(weights=0, zeros=0, bits={}),
        recipe={},
        dataset={},
        environment={},
        claims=Claims(accuracy=None, samples=None, latency=LATENCY),
        contract=Contract(
            input_name="images",
            input_shape=["N", 2],
            layout="",
            normalisation=None,
            output_name="logits",
            output_shape=["N", 2],
            labels=[],
        ),
        files=facts_of_files(folder),
    )
    seal_folder(folder, manifest)
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"handoff/{file.name}")
    return path


def test_a_bundle_of_plain_size_is_accepted(folder):
    found = {finding.check: finding for finding in verify_bundle(zipped(folder))}
    assert found["files"].holds
    assert found["files"].detail.startswith("4 files")


def test_an_onnx_model_larger_than_its_artifact_is_refused_before_it_is_unpacked(folder, monkeypatch):
    path = zipped(folder, model__onnx=ZEROS)
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr("modelpress.export.handoff.bundle.Bundle.copy_to", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(InputError, match=r"model\.onnx takes 67,108,864 bytes, model\.press decodes to 0"):
        verify_bundle(path)


def test_other_files_are_bounded_together(folder, monkeypatch):
    monkeypatch.setattr(checking, "MAX_OTHER_BYTES", 1 << 20)
    with pytest.raises(InputError, match="beside the models take .* expected up to 1,048,576"):
        verify_bundle(zipped(folder, run__py=(1 << 20) + 1))


def test_files_are_copied_in_the_memory_of_a_block(folder, tmp_path):
    path = zipped(folder, run__py=ZEROS)
    (tmp_path / "copy").mkdir()
    with open_bundle(path) as bundle:
        tracemalloc.start()
        try:
            bundle.copy_to(tmp_path / "copy")
            assert tracemalloc.get_traced_memory()[1] < ZEROS // 4
        finally:
            tracemalloc.stop()
    assert (tmp_path / "copy" / "run.py").read_bytes() == (folder / "run.py").read_bytes()
    assert making.PRESS == checking.PRESS


def test_a_name_that_no_file_system_takes_is_refused(folder):
    path = zipped(folder)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("handoff/" + "n" * 300, b"")
    with pytest.raises(InputError, match="has a name of more than 255 bytes"):
        verify_bundle(path)
