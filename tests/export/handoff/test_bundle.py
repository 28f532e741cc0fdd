"""Bundles as files: written whole or not at all, read without trust."""

import io
import json
import os
import stat
import zipfile

import numpy as np
import onnx
import pytest

from modelpress.export.errors import InputError
from modelpress.export.graphs.parts import has_external_data
from modelpress.export.handoff import bundle as bundle_module
from modelpress.export.handoff.bundle import (
    MAX_FILES,
    check_target,
    facts_of_files,
    open_bundle,
    seal_folder,
    staged_folder,
    write_archive,
)
from modelpress.export.handoff.manifest import Manifest, parse_manifest
from modelpress.toolkit.data.png_file import encode_png

FACTS = {
    "name": "small",
    "license": "unspecified",
    "flavour": "float",
    "metadata": {},
    "compression": {"weights": 0, "zeros": 0, "bits": {}},
    "recipe": {},
    "dataset": {},
    "environment": {},
    "claims": {
        "accuracy": None,
        "samples": None,
        "latency": {"batch": 1, "threads": 1, "p50_ms": 1, "p90_ms": 2, "samples": 3, "machine": "one"},
    },
    "contract": {
        "input_name": "x",
        "input_shape": ["N", 4],
        "layout": "",
        "normalisation": None,
        "output_name": "y",
        "output_shape": ["N", 2],
        "labels": [],
    },
}


def fill(folder):
    (folder / "samples").mkdir()
    (folder / "model.press").write_bytes(b"packed")
    (folder / "model.onnx").write_bytes(b"onnx" * 100)
    (folder / "samples" / "0.png").write_bytes(b"image")
    seal_folder(folder, Manifest(**FACTS, files=facts_of_files(folder)))


@pytest.fixture
def folder(tmp_path):
    target = tmp_path / "handoff"
    with staged_folder(target, overwrite=False) as staged:
        fill(staged)
    return target


@pytest.fixture
def archive(folder):
    path = folder.with_name("handoff.zip")
    with path.open("wb") as file:
        write_archive(file, folder, name="handoff")
    return path


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_and_its_archive_read_the_same(folder, archive, tmp_path):
    for number, path in enumerate((folder, archive)):
        with open_bundle(path) as bundle:
            assert bundle.manifest.name == "small"
            assert bundle.read("samples/0.png") == b"image"
            copy = tmp_path / f"copy{number}"
            copy.mkdir()
            bundle.copy_to(copy)
        assert contents(copy) == contents(folder)


def test_the_manifest_and_the_sums_are_what_they_are_documented_to_be(folder):
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert [line[66:] for line in lines] == ["manifest.json", "model.onnx", "model.press", "samples/0.png"]
    manifest = json.loads((folder / "manifest.json").read_bytes())
    known = "88cb8a087b6e8cebfc9ae5602f5a2159a6bcf923e7f2c56809bcda6cad1727a7"  # from another program
    assert manifest["files"]["model.press"] == {"size_bytes": 6, "sha256": known}


def test_reading_an_archive_writes_nothing(archive, tmp_path, monkeypatch):
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    with open_bundle(archive) as bundle:
        bundle.read("model.onnx")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_same_files_give_the_same_archive(folder):
    first, second = io.BytesIO(), io.BytesIO()
    write_archive(first, folder, name="handoff")
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    write_archive(second, folder, name="handoff")
    assert first.getvalue() == second.getvalue()


def test_files_may_lie_at_the_top_of_an_archive(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "flat.zip", "w") as file:
        for name, data in contents(folder).items():
            file.writestr(name, data)
    with open_bundle(tmp_path / "flat.zip") as bundle:
        assert bundle.read("model.press") == b"packed"


@pytest.mark.parametrize("name", ["model.press", "model.onnx", "samples/0.png"])
def test_a_changed_file_is_not_read(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[0] ^= 1
    (folder / name).write_bytes(data)
    with open_bundle(folder) as bundle, pytest.raises(InputError, match=f"{name} changed since"):
        bundle.read(name)


@pytest.mark.parametrize("name", ["manifest.json", "SHA256SUMS"])
def test_every_changed_byte_of_manifest_and_sums_is_found(folder, name):
    data = (folder / name).read_bytes()
    for position in range(0, len(data), 7):
        changed = bytearray(data)
        changed[position] ^= 1
        (folder / name).write_bytes(changed)
        with pytest.raises(InputError):
            open_bundle(folder)


def test_files_missing_or_added_are_named(folder):
    (folder / "more.txt").write_text("")
    with pytest.raises(InputError, match=r"more.txt is not listed"):
        open_bundle(folder)
    (folder / "more.txt").unlink()
    (folder / "model.press").unlink()
    with pytest.raises(InputError, match=r"model.press is missing"):
        open_bundle(folder)


def test_what_is_no_bundle_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("no archive")
    for path, message in (
        (tmp_path / "empty", "manifest.json is missing"),
        (tmp_path / "text.zip", "neither a bundle's folder nor a zip"),
        (tmp_path / "nowhere.zip", "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            open_bundle(path)


def test_a_newer_manifest_is_refused():
    document = {**FACTS, "files": {}, "schema_version": 3}
    with pytest.raises(InputError, match="schema 2: schema_version"):
        parse_manifest(json.dumps(document).encode(), "x")
    with pytest.raises(InputError, match="schema 2"):
        parse_manifest(b"\xff{", "x")


def test_a_manifest_of_version_1_is_read():
    document = {**FACTS, "files": {}, "schema_version": 1}
    assert parse_manifest(json.dumps(document).encode(), "x").claims.reference is None


@pytest.mark.parametrize("field", ["p50_ms", "recipe"])
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_manifest_with_numbers_that_are_not_finite_is_refused(field, number):
    latency = {**FACTS["claims"]["latency"], "p50_ms": "P50"}
    document = {**FACTS, "files": {}, "recipe": {"x": "RECIPE"}}
    text = json.dumps({**document, "claims": {**FACTS["claims"], "latency": latency}})
    values = {"p50_ms": "1.5", "recipe": "2"}
    for good in (True, False):
        values[field] = values[field] if good else number
        filled = text.replace('"P50"', values["p50_ms"]).replace('"RECIPE"', values["recipe"]).encode()
        if good:
            parse_manifest(filled, "x")
    with pytest.raises(InputError, match="schema 2"):
        parse_manifest(filled, "x")


@pytest.mark.parametrize("field", ["batch", "threads"])
@pytest.mark.parametrize("value", [0, 1025, 200_000])
def test_a_latency_is_claimed_within_bounds(field, value):
    claims = {**FACTS["claims"], "latency": {**FACTS["claims"]["latency"], field: value}}
    with pytest.raises(InputError, match=f"claims.latency.{field}"):
        parse_manifest(json.dumps({**FACTS, "claims": claims, "files": {}}).encode(), "x")


def test_a_file_that_is_no_part_of_the_bundle_cannot_be_read(folder):
    (folder.parent / "secret").write_text("s")
    with open_bundle(folder) as bundle, pytest.raises(InputError, match="has no file"):
        bundle.read("../secret")


def test_links_in_a_folder_are_refused(folder):
    secret = folder.parent / "secret"
    secret.write_bytes(b"packed")
    (folder / "model.press").unlink()
    (folder / "model.press").symlink_to(secret)
    with pytest.raises(InputError, match=r"model.press is a link"):
        open_bundle(folder)
    (folder / "model.press").unlink()
    (folder / "more").symlink_to(folder.parent, target_is_directory=True)
    with pytest.raises(InputError, match="more is a link"):
        open_bundle(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_in_a_folder_is_refused_and_not_waited_for(folder):
    os.mkfifo(folder / "pipe")
    with pytest.raises(InputError, match="pipe is no regular file"):
        open_bundle(folder)


def hostile(path, source, add):
    """The archive with one more entry."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry, old.read(entry))
        add(new)
    return path


def entry(name, mode=stat.S_IFREG | 0o644):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../evil", "lead out of the bundle"),
        ("handoff/../../evil", "lead out of the bundle"),
        ("/etc/evil", "lead out of the bundle"),
        ("handoff//evil", "lead out of the bundle"),
        ("handoff/./evil", "lead out of the bundle"),
        ("C:/evil", "no safe file name"),
        ("handoff/C:evil", "no safe file name"),
        ("handoff\\..\\evil", "no safe file name"),
        ("handoff/a\nb", "no safe file name"),
        ("handoff/a\0b", "no safe file name"),
        ("handoff/MODEL.press", "is there twice"),
        ("handoff/model.press/inside", "is there twice"),
        ("handoff/more", "not listed in the manifest"),
        ("elsewhere/more", "manifest.json is missing"),
    ],
)
def test_entries_with_hostile_names_are_refused(archive, tmp_path, name, message):
    placeholder = "p" * len(name)  # zipfile would mend some names
    path = hostile(tmp_path / "hostile.zip", archive, lambda new: new.writestr(entry(placeholder), b"x"))
    path.write_bytes(path.read_bytes().replace(placeholder.encode(), name.encode()))
    with pytest.raises(InputError, match=message):
        open_bundle(path)
    assert not (tmp_path / "evil").exists()


def test_a_name_that_is_there_twice_is_refused(archive, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = hostile(
            tmp_path / "twice.zip", archive, lambda new: new.writestr(entry("handoff/model.press"), b"other")
        )
    with pytest.raises(InputError, match="is there twice"):
        open_bundle(path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_special_files_in_an_archive_are_refused(archive, tmp_path, kind):
    path = hostile(
        tmp_path / "link.zip",
        archive,
        lambda new: new.writestr(entry("handoff/more", kind | 0o777), b"/etc/passwd"),
    )
    with pytest.raises(InputError, match="is a link or no regular file"):
        open_bundle(path)


def test_encrypted_and_unusually_compressed_entries_are_refused(archive, tmp_path):
    def add(new):
        info = entry("handoff/more")
        info.compress_type = zipfile.ZIP_LZMA
        new.writestr(info, b"x" * 1000)

    with pytest.raises(InputError, match="encrypted or not compressed by deflate"):
        open_bundle(hostile(tmp_path / "lzma.zip", archive, add))


def test_an_archive_that_unpacks_to_too_much_is_refused(archive, tmp_path):
    path = hostile(
        tmp_path / "bomb.zip", archive, lambda new: new.writestr(entry("handoff/zeros"), bytes(5_000_000))
    )
    assert path.stat().st_size < 20_000
    with pytest.raises(InputError, match="take more than 1,000,000 bytes"):
        open_bundle(path, max_bytes=1_000_000)


def test_an_entry_longer_than_it_declares_is_not_unpacked(archive):
    raw = archive.read_bytes()
    with zipfile.ZipFile(archive) as file:
        info = file.getinfo("handoff/model.onnx")
    declared = (info.file_size).to_bytes(4, "little")
    assert raw.count(declared) >= 2
    archive.write_bytes(raw.replace(declared, (7).to_bytes(4, "little")))
    with open_bundle(archive) as bundle, pytest.raises(InputError, match=r"model.onnx"):
        bundle.read("model.onnx")


def test_too_many_files_are_refused(archive, tmp_path):
    def add(new):
        for number in range(MAX_FILES):
            new.writestr(entry(f"handoff/{number}"), b"")

    with pytest.raises(InputError, match="more than 10,000 files"):
        open_bundle(hostile(tmp_path / "many.zip", archive, add))


def test_a_huge_manifest_is_not_parsed(folder, monkeypatch):
    monkeypatch.setattr(bundle_module, "_MAX_MANIFEST_BYTES", 100)
    with pytest.raises(InputError, match=r"manifest.json takes more than"):
        open_bundle(folder)


def test_damaged_archives_raise_one_kind_of_error(archive):
    raw = archive.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        changed = bytearray(raw)
        for position in rng.integers(0, len(raw), 3):
            changed[position] = rng.integers(256)
        archive.write_bytes(changed[: rng.integers(len(raw) // 2, len(raw) + 1)])
        try:
            with open_bundle(archive) as bundle:
                for name in bundle.manifest.files:
                    bundle.read(name)
        except InputError:
            continue


def test_an_interrupted_bundle_leaves_the_old_one_and_nothing_else(folder):
    before = contents(folder.parent)
    staging = staged_folder(folder, overwrite=True)
    (staging.__enter__() / "model.press").write_bytes(b"half")
    assert not staging.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert contents(folder.parent) == before


def test_a_new_bundle_replaces_the_old_one_whole(folder):
    with staged_folder(folder, overwrite=True) as staged:
        (staged / "only").write_bytes(b"new")
    assert contents(folder.parent) == {"handoff/only": b"new"}
    assert stat.S_IMODE(folder.stat().st_mode) & 0o500 == 0o500


def test_what_is_no_bundle_is_never_replaced(folder, tmp_path):
    with pytest.raises(InputError, match="pass --overwrite"):
        check_target(folder, overwrite=False)
    check_target(folder, overwrite=True)
    (folder / "samples" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"samples/notes.txt, which is no part of a bundle"):
        check_target(folder, overwrite=True)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(folder)
    for name in ("file", "link"):
        with pytest.raises(InputError, match="is there and no folder"):
            check_target(tmp_path / name, overwrite=True)


@pytest.mark.parametrize("missing", ["SHA256SUMS", "manifest.json"])
def test_a_folder_without_manifest_or_sums_is_no_bundle_to_replace(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(InputError, match="which is no part of a bundle"):
        check_target(folder, overwrite=True)


def test_a_folder_with_somebody_elses_manifest_is_never_replaced(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "manifest.json").write_text('{"name": "my web site"}')
    with pytest.raises(InputError, match=r"manifest.json, which is no part of a bundle"):
        check_target(tmp_path / "site", overwrite=True)


def test_names_too_long_for_a_file_system_are_refused(tmp_path):
    with pytest.raises(InputError, match="too long"):
        check_target(tmp_path / ("n" * 300), overwrite=False)
    with pytest.raises(InputError, match="too long"):
        open_bundle(tmp_path / ("n" * 300))


@pytest.mark.parametrize("part", ["values", "indices"])
def test_sparse_weights_in_another_file_are_seen_in_every_graph(part):
    for nested in (False, True):
        inner = onnx.GraphProto()
        getattr(inner.sparse_initializer.add(), part).data_location = onnx.TensorProto.EXTERNAL
        model = onnx.ModelProto()
        if nested:
            model.graph.node.append(onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner))
        else:
            model.graph.CopyFrom(inner)
        assert has_external_data(model)


def test_png_files_are_read_back_by_another_program():
    Image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(3)
    for channels in (1, 3):
        pixels = rng.integers(0, 256, (channels, 5, 7), np.uint8)
        with Image.open(io.BytesIO(encode_png(pixels))) as image:
            read = np.asarray(image).reshape(5, 7, channels)
        np.testing.assert_array_equal(read, pixels.transpose(1, 2, 0))
    with pytest.raises(ValueError, match="no grey or RGB image"):
        encode_png(np.zeros((2, 5, 7), np.uint8))
