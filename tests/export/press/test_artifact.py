import errno
import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest

from modelpress.export.coding import lzma_stream
from modelpress.export.errors import (
    ArtifactError,
    ChecksumMismatch,
    DamagedArtifact,
    InputError,
    ModelError,
    NotAnArtifact,
    TruncatedArtifact,
    UnsupportedVersion,
)
from modelpress.export.files import atomic as atomic_file
from modelpress.export.press.encodings import ENCODINGS, SAME, decode_blob
from modelpress.export.press.encodings.file_state import FileState
from modelpress.export.press.reading import Artifact, decode_artifact, open_artifact, read_artifact
from modelpress.export.press.writing import encode_artifact, write_artifact
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, tensors_equal
from modelpress.export.tensor_spec import TensorSpec, carrier_of
from tests.helpers.artifact_chunks import HEADER, SMALL, chunks_of, resealed, with_chunks
from tests.helpers.models import small_model, sparse_model
from tests.helpers.paths import GOLDEN, ROOT
from tests.reference.press_writer import Line, Parts, assemble, varint


def test_round_trip_is_exact():
    assert decode_artifact(SMALL).equals(small_model())


GOLDEN_MODELS = sorted(path.stem for path in GOLDEN.glob("*.press"))


@pytest.mark.parametrize("golden", GOLDEN_MODELS)
def test_golden_files_decode_to_their_arrays(golden):
    model = read_artifact(GOLDEN / f"{golden}.press")
    expected = np.load(GOLDEN / f"{golden}.npz")
    found = {}
    for name, tensor in model.tensors.items():
        if isinstance(tensor, QuantizedTensor):
            parts = {p: getattr(tensor, p) for p in ("codes", "scale", "offset", "support", "channel_scale")}
            found |= {f"{name}/{p}": v for p, v in parts.items() if v is not None}
        else:
            found[name] = carrier_of(tensor)
    assert len(GOLDEN_MODELS) == 12
    assert sorted(found) == sorted(expected.files)
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], strict=True)


OF_VERSION = {
    "v1.0": range(5),
    "v1.1": [0, *range(4, 14)],
    "v1.2": [0, *range(4, 19)],
    "v1.3": [0, *range(4, 19), 20, 21],
}


@pytest.mark.parametrize("version", OF_VERSION)
def test_golden_blobs_of_every_encoding_decode_to_the_same_tensors(version):
    model = read_artifact(GOLDEN / f"{version}-small.press")
    blobs = np.load(GOLDEN / f"{version}-blobs.npz")
    names_1_0 = ["raw", "packed", "huffman", "csr+huffman", "byte planes"]
    seen = set()
    for key in blobs.files:
        name, encoding = key.split("|")
        number = names_1_0.index(encoding) if version == "v1.0" else int(encoding.split()[0])
        tensor = model.tensors[name]
        restored, _ = decode_blob(number, blobs[key].tobytes(), TensorSpec(tensor.shape, 1), FileState())
        assert tensors_equal(restored, tensor), key
        seen.add(number)
    assert seen == set(OF_VERSION[version])
    assert {number for numbers in OF_VERSION.values() for number in numbers} == set(ENCODINGS) - {SAME}


def test_every_byte_is_accounted_for():
    opened = Artifact(io.BytesIO(SMALL))
    assert opened.frame_bytes == HEADER + 2 * 12
    for stored in opened.stored():
        assert sum(stored.parts.values()) == stored.record.n_bytes


@pytest.mark.parametrize("effort", ["fast", "default", "max"])
def test_tensors_can_be_asked_for_in_any_order(tmp_path, effort):
    path = tmp_path / "model.press"
    write_artifact(path, sparse_model(), effort=effort)
    with open_artifact(path) as opened:
        lazy, eager = opened.lazy_model(), sparse_model()
        for name in (*reversed(list(lazy.tensors)), *lazy.tensors):
            assert tensors_equal(lazy.tensors[name], eager.tensors[name])
        assert len(lazy.tensors) == len(eager.tensors)
    assert read_artifact(path).equals(eager)


def test_more_effort_never_takes_more_bytes():
    sizes = [len(encode_artifact(sparse_model(), effort=effort)) for effort in ("fast", "default", "max")]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[2]


def test_large_models_are_decoded_in_threads_to_the_same_tensors():
    rng = np.random.default_rng(0)
    tensors = {
        f"w{i}": QuantizedTensor(
            (rng.integers(-7, 8, (64, 20_000)) * (rng.random((64, 20_000)) < 0.3)).astype(np.int8),
            bits=4,
            scale=np.float32(0.1),
        )
        for i in range(4)
    }
    model = QuantizedModel(small_model().graph, {**tensors, "bias": np.ones(3, np.float32)})
    opened = Artifact(io.BytesIO(encode_artifact(model, effort="fast")))
    assert sum(record.spec.size for record in opened.records) >= 1 << 22
    assert opened.model().equals(model)


def test_bytes_do_not_depend_on_the_process():
    script = "import sys; from tests.helpers.models import small_model; \
from modelpress.export.press.writing import encode_artifact; \
sys.stdout.buffer.write(encode_artifact(small_model()))"
    for seed, threads in (("0", "1"), ("1", "2"), ("4711", "1")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, env=environment, check=True, cwd=ROOT
        )
        assert done.stdout == SMALL


def test_every_truncation_is_refused():
    for length in range(len(SMALL)):
        with pytest.raises((NotAnArtifact, TruncatedArtifact)):
            decode_artifact(SMALL[:length])


def test_trailing_bytes_are_refused():
    with pytest.raises(TruncatedArtifact, match="longer than it declares"):
        decode_artifact(SMALL + b"\0")


def test_every_flipped_bit_is_noticed():
    for position in range(8 * len(SMALL)):
        damaged = bytearray(SMALL)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(ArtifactError):
            decode_artifact(bytes(damaged))


def test_newer_major_version_is_named():
    with pytest.raises(UnsupportedVersion, match="format version 2.0; this reader knows 1.x"):
        decode_artifact(resealed(SMALL[HEADER:], version=(2, 0)))


def test_newer_minor_version_is_read():
    assert decode_artifact(resealed(SMALL[HEADER:], version=(1, 7))).equals(small_model())


def test_unknown_chunks_are_skipped_or_refused_by_their_case():
    extra = struct.pack("<4sQ", b"note", 2) + b"hi"
    assert decode_artifact(resealed(SMALL[HEADER:] + extra, n_chunks=3)).equals(small_model())
    extra = struct.pack("<4sQ", b"NOTE", 2) + b"hi"
    with pytest.raises(UnsupportedVersion, match="critical chunk b'NOTE'"):
        decode_artifact(resealed(SMALL[HEADER:] + extra, n_chunks=3))


def test_a_chunk_that_occurs_twice_or_is_missing_is_refused():
    again = struct.pack("<4sQ", b"DATA", 0)
    with pytest.raises(DamagedArtifact, match="DATA occurs twice"):
        decode_artifact(resealed(SMALL[HEADER:] + again, n_chunks=3))
    with pytest.raises(DamagedArtifact, match="chunk GRPH is missing"):
        decode_artifact(resealed(b"", n_chunks=0))
    with pytest.raises(DamagedArtifact, match="graph and tensor directory occur twice"):
        decode_artifact(with_chunks(META=chunks_of(SMALL)[b"META"]))


def test_lying_inflated_sizes_are_refused():
    bomb = zlib.compress(bytes(10_000_000))
    with pytest.raises(DamagedArtifact, match="the limit is"):
        decode_artifact(with_chunks(GRPH=struct.pack("<I", 1 << 31) + bomb))
    with pytest.raises(DamagedArtifact, match="does not inflate to the 100 bytes declared"):
        decode_artifact(with_chunks(TDIR=struct.pack("<I", 100) + bomb))

    bomb = lzma_stream.compress(bytes(10_000_000))
    for sizes, message in (
        ((1 << 31, 1), "the limit is"),
        ((60, 40), "does not decompress to the 100 bytes"),
    ):
        chunk = struct.pack("<II", *sizes) + bomb
        with pytest.raises(DamagedArtifact, match=message):
            decode_artifact(resealed(struct.pack("<4sQ4sQ", b"DATA", 0, b"META", len(chunk)) + chunk))


def test_decoded_size_is_limited_before_anything_is_decoded():
    with pytest.raises(DamagedArtifact, match="tensors decode to 364 bytes; the limit is 100"):
        decode_artifact(SMALL, max_decoded_bytes=100)


def test_damaged_tensor_is_named():
    blobs = bytearray(chunks_of(SMALL)[b"DATA"])
    blobs[30] ^= 1
    with pytest.raises(ChecksumMismatch, match=r"conv\.weight: its bytes changed"):
        decode_artifact(with_chunks(DATA=bytes(blobs)))


@pytest.mark.parametrize("names", [["a", "A"], ["é", "e\u0301"], [""], ["a\0b"]])
def test_names_that_collide_or_confuse_are_refused(names):
    model = QuantizedModel(small_model().graph, {name: np.zeros(1, np.float32) for name in names})
    with pytest.raises(ModelError, match="tensor name"):
        encode_artifact(model)


@pytest.mark.parametrize("effort", ["fast", "default", "max"])
@pytest.mark.parametrize("bits", [[0x7FC00000], [0xFF800000, 0x7F800001, 1 << 31, 0], [0x7F800000] * 700])
def test_weights_that_are_not_finite_are_kept_bit_for_bit(bits, effort):
    bias = np.array(bits, np.uint32).view(np.float32)
    model = QuantizedModel(small_model().graph, {"conv.bias": bias})
    restored = decode_artifact(encode_artifact(model, effort=effort)).tensors["conv.bias"]
    assert restored.tobytes() == bias.tobytes()


def test_types_without_an_encoding_are_refused():
    model = QuantizedModel(small_model().graph, {"x": np.array(["text"])})
    with pytest.raises(ModelError, match="x: type <U4 cannot be"):
        encode_artifact(model)


def test_saving_over_the_file_one_has_read_works(tmp_path):
    path = tmp_path / "model.press"
    write_artifact(path, small_model())
    write_artifact(path, read_artifact(path))
    assert read_artifact(path).equals(small_model())


@pytest.mark.parametrize("effort", ["fast", "default", "max"])
def test_equal_tensors_are_stored_once(effort):
    model = sparse_model()
    names = [*model.tensors]
    weight = model.tensors[names[0]]
    bits = np.array([0x7F800001, 0, 1 << 31] * 9, np.uint32)
    extra = {"again": weight, "nan": bits.view(np.float32), "nan too": bits.view(np.float32), "bits": bits}
    tensors = {**model.tensors, **extra, "shape": bits.view(np.float32).reshape(3, 9)}
    data = encode_artifact(QuantizedModel(model.graph, tensors), effort=effort)
    artifact = Artifact(io.BytesIO(data))
    same = {record.name for record in artifact.records if record.encoding == SAME}
    assert same == {"again", "nan too"}
    assert all(record.n_bytes == 1 for record in artifact.records if record.name in same)

    lazy = artifact.lazy_model().tensors
    for name in ("again", "nan too", *tensors):
        assert tensors_equal(lazy[name], tensors[name]), name
        assert tensors_equal(artifact.model().tensors[name], tensors[name]), name


@pytest.mark.parametrize("number", [1, 2, 200])
def test_the_same_as_no_earlier_tensor_is_refused(number):
    lines = [Line(name, 1, (1,), 0, bytes(4)) for name in "ab"]
    same = Line("c", 1, (2,) if number == 1 else (1,), SAME, varint(number))
    with pytest.raises(DamagedArtifact, match=r"c: (cannot be the same as b|is the same as tensor)"):
        decode_artifact(assemble(Parts((*lines, same), is_joint=True)))


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, failing):
    path = tmp_path / "model.press"
    path.write_bytes(b"old")

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic_file.os, failing, full)
    with pytest.raises(InputError, match="No space left on device"):
        write_artifact(path, small_model())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot write in .*nowhere"):
        write_artifact(tmp_path / "nowhere" / "model.press", small_model())


def test_files_that_are_no_artifact_say_how_they_start(tmp_path):
    path = tmp_path / "model.press"
    path.write_bytes(b"PK\x03\x04 a zip file")
    with pytest.raises(NotAnArtifact, match="starts with 50 4b 03 04"):
        read_artifact(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_artifact(tmp_path / "missing.press")
