"""The chunk of shared code tables, as it is and compressed: what is written, what is read, what is refused."""

import io
import struct
from dataclasses import replace

import pytest
from onnx import TensorProto

from modelpress.export.press.encodings import huffman_blob
from modelpress.export.press.encodings.choice import Choice
from modelpress.export.press.encodings.kernels.kernel_mask import KernelMaskCoder
from modelpress.export.press.frame import CHUNK, SQUEEZED, read_frame
from modelpress.export.press.reading import Artifact
from modelpress.export.press.shared_tables import pack_tables, with_own_tables
from modelpress.export.press.writing import encode_artifact
from tests.helpers import c_reader
from tests.helpers.models import alike_model, small_model
from tests.helpers.samples import quantized
from tests.reference.agreement import judged, reference_reading
from tests.reference.press_reference import Refused
from tests.reference.press_writer import Line, Parts, assemble, sealed, squeezed

LIMIT = 1 << 16
TABLES = bytes.fromhex("01 01 06 01 01")  # a group of one table, of the symbol 3
LINE = Line(
    "w", TensorProto.FLOAT, (1,), 6, bytes([3, 0]) + struct.pack("<f", 0.5) + b"\1"
)  # which refers to it
TWICE = struct.pack("<I", len(TABLES)) + squeezed(TABLES)


def verdict(data):
    """What all readers say: None, or why the reference refuses."""
    also = c_reader.disagreement if c_reader.is_there() else None
    assert judged(data, max_decoded_bytes=LIMIT, also=also)[1] is None
    reading = reference_reading(data, LIMIT)
    return str(reading) if isinstance(reading, Refused) else None


def with_chunk(file, payload):
    """One more at the end."""
    head = file[:12] + bytes([file[12] + 1]) + file[13:]
    return sealed(head + SQUEEZED + struct.pack("<Q", len(payload)) + payload)


@pytest.mark.parametrize("is_joint", [False, True])
def test_compressed_tables_are_those_that_were_compressed(is_joint):
    parts = Parts((LINE,), tables=TABLES, is_joint=is_joint)
    assert verdict(assemble(parts)) is None
    assert verdict(assemble(replace(parts, squeezes_tables=True))) is None


@pytest.mark.parametrize(
    ("chunk", "reason"),
    [
        (struct.pack("<I", (1 << 20) + 1) + squeezed(bytes((1 << 20) + 1)), "larger than 1 MiB"),
        (struct.pack("<I", len(TABLES) + 1) + TWICE[4:], "another length than declared"),
        (struct.pack("<I", len(TABLES) - 1) + TWICE[4:], "another length than declared"),
        (TWICE + b"\0", "bytes follow"),
        (TWICE[:-1], "another length than declared"),
        (struct.pack("<I", len(TABLES) + 1) + squeezed(TABLES + b"\0"), "bytes are left over"),
        (struct.pack("<I", len(TABLES) - 1) + squeezed(TABLES[:-1]), "fewer bytes are left"),
        (struct.pack("<I", 0) + squeezed(b""), "fewer bytes are left"),
        (struct.pack("<I", 5) + squeezed(TABLES[:-1] + b"\2"), "Kraft"),
        (TWICE[:3], "fewer bytes are left"),
    ],
)
def test_compressed_tables_that_are_damaged_are_refused(chunk, reason):
    assert reason in verdict(with_chunk(assemble(Parts((LINE,), is_joint=True)), chunk))


def test_two_chunks_of_tables_are_refused():
    assert verdict(with_chunk(assemble(Parts((LINE,))), TWICE)) is None
    assert "beside" in verdict(with_chunk(assemble(Parts((LINE,), tables=TABLES)), TWICE))


def test_tables_are_compressed_where_that_is_shorter_and_only_then_is_the_version_new():
    for model, version in ((alike_model(), (1, 4)), (small_model(), (1, 2))):
        data = encode_artifact(model)
        frame = read_frame(io.BytesIO(data))
        assert frame.version == version
        assert (SQUEEZED in frame.chunks) == (version == (1, 4))
        artifact = Artifact(io.BytesIO(data))
        assert artifact.model().equals(model)
        groups = artifact.shared
        assert artifact.table_bytes == (len(pack_tables(groups)[1]) if groups else 0)


def test_tables_of_one_tensor_join_the_shared_ones_where_that_is_shorter():
    tensor = quantized((16, 16, 3, 3), density=0.3)
    (plan,) = huffman_blob.survey(tensor, [KernelMaskCoder(9, 3, 1)])
    alone = Choice([plan], {})
    joined = with_own_tables(alone)
    assert [*joined.shared] == [plan.coder.groups[0]]  # masks, whose table is long; not the one of levels
    chunk = CHUNK.size + len(pack_tables(joined.groups)[1])
    assert plan.n_bytes(joined.shared) + chunk < plan.n_bytes(alone.shared)
