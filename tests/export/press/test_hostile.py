"""Files whose checksums are right and whose content is not."""

import contextlib
import struct
import zlib

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpress.export.errors import ArtifactError, DamagedArtifact, ModelError
from modelpress.export.onnx_flavours import emit
from modelpress.export.press.directory import check_names
from modelpress.export.press.frame import pack_meta, unpack_meta
from modelpress.export.press.reading import decode_artifact, read_artifact
from modelpress.export.press.writing import encode_artifact, write_artifact
from modelpress.export.quantized import QuantizedModel, QuantizedTensor
from tests.helpers.artifact_chunks import SMALL, SMALL_1_1, chunks_of, deflated, resealed, with_chunks
from tests.helpers.models import small_model


@given(st.data())
def test_a_damaged_directory_or_blob_raises_only_artifact_errors(data):
    is_joint = data.draw(st.booleans())
    chunks = chunks_of(SMALL if is_joint else SMALL_1_1)
    stored, graph = unpack_meta(chunks[b"META"]) if is_joint else (zlib.decompress(chunks[b"TDIR"][4:]), b"")
    directory, blobs = bytearray(stored), bytearray(chunks[b"DATA"])
    for _ in range(data.draw(st.integers(1, 3))):
        target = data.draw(st.sampled_from([directory, blobs]))
        target[data.draw(st.integers(0, len(target) - 1))] = data.draw(st.integers(0, 255))

    if is_joint:
        meta = pack_meta(bytes(directory), graph)
        body = (
            struct.pack("<4sQ", b"DATA", len(blobs)) + blobs + struct.pack("<4sQ", b"META", len(meta)) + meta
        )
        hostile = resealed(body)
    else:
        hostile = with_chunks(TDIR=deflated(bytes(directory)), DATA=bytes(blobs))
    with contextlib.suppress(ArtifactError):
        decode_artifact(hostile, max_decoded_bytes=1 << 20)


@given(st.data())
def test_a_damaged_graph_is_refused_by_the_artifact_or_the_checker(data):
    graph = bytearray(small_model().graph.SerializeToString(deterministic=True))
    for _ in range(data.draw(st.integers(1, 3))):
        graph[data.draw(st.integers(0, len(graph) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ArtifactError, ModelError):
        emit(decode_artifact(with_chunks(GRPH=deflated(bytes(graph)))), flavour="float")


def one_tensor(shape, encoding, blob, *, onnx_type=1, name=b"x"):
    """A file with one tensor whose directory entry may lie."""
    record = (
        struct.pack("<H", len(name)) + name + struct.pack(f"<BB{len(shape)}I", onnx_type, len(shape), *shape)
    )
    record += struct.pack("<BIQ", encoding, zlib.crc32(blob), len(blob))
    return with_chunks(TDIR=deflated(struct.pack("<I", 1) + record), DATA=blob)


@pytest.mark.parametrize("encoding", [0, 1, 2, 3])
def test_an_empty_axis_does_not_hide_a_huge_one(encoding):
    with pytest.raises(DamagedArtifact, match="exceeds 4,294,967,295 elements"):
        decode_artifact(one_tensor((2**32 - 1, 2**32 - 1, 0), encoding, b""))


def test_the_writer_keeps_the_readers_limits():
    with pytest.raises(ModelError, match="exceeds 8 axes"):
        encode_artifact(QuantizedModel(small_model().graph, {"x": np.zeros((2**33, 0), np.float32)}))
    with pytest.raises(ModelError, match="65,537 tensors"):
        encode_artifact(QuantizedModel(small_model().graph, {f"x{i}": np.zeros(1) for i in range(65_537)}))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_floats_that_are_not_finite_are_refused_when_loading(bad):
    with pytest.raises(DamagedArtifact, match="x: holds NaN or infinity"):
        decode_artifact(one_tensor((1,), 0, struct.pack("<f", bad)))


def test_values_that_overflow_are_refused():
    with pytest.raises(ModelError, match="overflows float32"):
        QuantizedTensor(np.array([3], np.int8), bits=3, scale=np.float32(3e38))
    with pytest.raises(DamagedArtifact, match="overflows"):
        decode_artifact(one_tensor((1,), 1, bytes([3, 0]) + struct.pack("<f", 3e38) + b"\x06"))


@pytest.mark.parametrize("name", [b"", b"\x1b[2J", b"a\n", b"e" * 1025, b"\xff"])
def test_hostile_names_are_refused(name):
    with pytest.raises(DamagedArtifact, match="name"):
        decode_artifact(one_tensor((1,), 0, bytes(4), name=name))


def test_lone_surrogates_in_names_are_refused():
    with pytest.raises(ModelError, match="unprintable"):
        check_names(["\ud800"])


def graph_with(change):
    graph = onnx.ModelProto()
    graph.CopyFrom(small_model().graph)
    change(graph)
    return graph


def external_constant(graph):
    tensor = onnx.TensorProto(data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secret.bin")
    graph.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=tensor))


def nested_initializer(graph):
    inner = onnx.GraphProto()
    inner.initializer.add(name="hidden")
    graph.graph.node.append(onnx.helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (external_constant, "lies in another file"),
        (nested_initializer, "a graph inside If still holds initializers"),
        (lambda graph: graph.graph.sparse_initializer.add(), "still holds initializers"),
        (lambda graph: graph.graph.initializer.add(name="hidden"), "the graph still holds initializers"),
    ],
)
def test_a_graph_must_be_complete_in_itself(change, reason):
    graph = graph_with(change)
    with pytest.raises(ModelError, match=reason):
        encode_artifact(QuantizedModel(graph, {}))
    with pytest.raises(DamagedArtifact, match=reason):
        decode_artifact(with_chunks(GRPH=deflated(graph.SerializeToString())))


def test_big_endian_arrays_come_back_in_native_order(tmp_path):
    model = QuantizedModel(small_model().graph, {"x": np.array([1.5, 2.5], ">f4")})
    write_artifact(tmp_path / "m.press", model)
    restored = read_artifact(tmp_path / "m.press").tensors["x"]
    np.testing.assert_array_equal(restored, np.array([1.5, 2.5], np.float32), strict=True)
