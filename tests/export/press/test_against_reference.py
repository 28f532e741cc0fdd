"""The product against the reference decoder: every encoding, every kind of grid, bit for bit."""

import struct
import zlib
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from modelpress.export.coding import core, slabs
from modelpress.export.press.encodings import ENCODINGS, SAME, mixed_contexts
from modelpress.export.press.encodings.kernels import kernel_mask
from modelpress.export.press.writing import encode_artifact
from tests.helpers.compiled_core import built_core
from tests.helpers.models import alike_model, small_model, sparse_model
from tests.helpers.paths import GOLDEN
from tests.helpers.samples import encoded, in_every_encoding, quantized, samples, shared_samples
from tests.reference import mixed_reference, streams
from tests.reference.agreement import disagreement, reference_reading
from tests.reference.grid import read_grid
from tests.reference.press_reference import Refused
from tests.reference.press_writer import Line, Parts, assemble, tiny_graph
from tests.reference.quantized_reference import csr_huffman
from tests.reference.streams import Stream

GOLDEN_FILES = sorted(GOLDEN.glob("*.press"))
LIMIT = 1 << 24
FLOAT = TensorProto.FLOAT
GRID = bytes([3, 0]) + struct.pack("<f", 0.5)  # 3 bits, nothing but a scale


def check_agreement(data):
    """Both accept, and read the same."""
    reading = reference_reading(data, LIMIT)
    if isinstance(reading, Refused):
        pytest.fail(f"the reference refused: {reading}")
    assert disagreement(data, max_decoded_bytes=LIMIT) is None


def check_refusal(data, reason):
    """Both refuse."""
    refusal = reference_reading(data, LIMIT)
    assert isinstance(refusal, Refused)
    assert reason in str(refusal)
    assert disagreement(data, max_decoded_bytes=LIMIT) is None


def file_of(*lines, **changes):
    named = tuple(replace(line, name=f"w{k}") for k, line in enumerate(lines))
    return assemble(Parts(named, **changes))


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


def one_tensor(encoding, shape, blob, element_type=FLOAT):
    return file_of(Line("w", element_type, shape, encoding, blob))


# --- The reference itself


def test_worked_example_of_the_specification():
    stream = Stream(bytes.fromhex("03 10 00 38 01 00 00 02 11 00 01 05 01 00 01 07 BD 00"))
    grid = read_grid(stream, (2, 4), FLOAT)
    assert csr_huffman(stream, grid, 8, []) == [0, 3, 0, 0, 0, 0, -1, 0]
    stream.finish()


@pytest.mark.parametrize("path", GOLDEN_FILES, ids=lambda path: path.stem)
def test_golden_file(path):
    check_agreement(path.read_bytes())


# --- What is written


def test_samples_exercise_every_encoding():
    assert {line.encoding for name in samples() for line in encoded(name)} == set(ENCODINGS) - {SAME}


@pytest.mark.parametrize("name", samples())
def test_sample_in_every_encoding(name):
    for k, line in enumerate(encoded(name)):
        check_agreement(file_of(line, is_joint=k % 2 == 0))


def test_the_same_tensor_in_every_encoding():
    lines = [encoded(name)[-1] for name in ("op 5x7", "indices", "type 22")]
    for line in lines:
        check_agreement(file_of(line, replace(line, encoding=SAME, blob=b"\0"), is_joint=True))
    for blob, reason in ((b"\0\0", "left over"), (b"\1", "not an earlier one"), (b"\x80\0", "fewest bytes")):
        check_refusal(file_of(lines[0], replace(lines[0], encoding=SAME, blob=blob)), reason)
    mixed = next(line for line in encoded("op 5x7") if line.encoding == 10)
    check_refusal(file_of(mixed, replace(mixed, encoding=SAME, blob=b"\0")), "none can be the same as")
    other = replace(lines[0], encoding=SAME, blob=b"\0", shape=(7, 5))
    check_refusal(file_of(lines[0], other), "another kind")


@pytest.mark.parametrize("name", shared_samples())
def test_shared_tables(name):
    parts = shared_samples()[name]
    check_agreement(assemble(parts))
    check_agreement(assemble(replace(parts, squeezes_tables=True)))


@pytest.mark.parametrize("effort", ["fast", "default", "max"])
@pytest.mark.parametrize("model", [small_model, sparse_model, alike_model])
def test_model_at_every_effort(model, effort):
    check_agreement(encode_artifact(model(), effort=effort))


def test_runs_of_several_lanes():
    dense = quantized((4, 5000), bits=3, flags="op")
    pairs = quantized((2, 8500, 2), bits=2, density=0.8)  # kernels of two taps: a mask for each
    array = np.random.default_rng(3).integers(-1000, 1000, 17_000).astype(np.int32)
    runs = one_of_each(dense, 1, 2, 5, 6, 7, 8) + one_of_each(pairs, 3, 9) + one_of_each(array, 13)
    assert len(runs) == 9
    for line in runs:
        check_agreement(file_of(line))


def one_of_each(tensor, *encodings):
    lines = {line.encoding: line for line in in_every_encoding(tensor)}
    return [lines[encoding] for encoding in encodings if encoding in lines]


@pytest.mark.parametrize("way", ["numpy", "compiled"])
@pytest.mark.parametrize("elements", [9, 64, 65])
def test_several_slabs(monkeypatch, tmp_path, elements, way):
    if way == "compiled":  # whose limits are fixed when it is built
        limits = ("PRESS_SLAB_ELEMENTS", "PRESS_KERNEL_SLAB", "PRESS_MIXED_SLAB")
        short = built_core(tmp_path, *(f"{limit}=((size_t){elements})" for limit in limits))
        monkeypatch.setattr(core, "_built", lambda: short)
    for module in (slabs, streams, mixed_reference):
        monkeypatch.setattr(module, "SLAB_ELEMENTS", elements)
    monkeypatch.setattr(mixed_contexts, "_SLAB_ELEMENTS", elements)
    monkeypatch.setattr(kernel_mask, "SLAB_ELEMENTS", elements)
    monkeypatch.setattr(streams, "KERNEL_SLAB_ELEMENTS", elements)
    with core.numpy_alone() if way == "numpy" else nullcontext():
        for tensor in (quantized((5, 4, 3, 3), flags="ospc"), np.arange(200, dtype=np.int16)):
            for line in in_every_encoding(tensor):
                check_agreement(file_of(line))


# --- What must be refused, and what need not


EMPTY = b"\0\0"  # a code table of no symbols
ZERO, ONE, TWO, THREE = (bytes([2 * symbol, 1, 1]) for symbol in range(4))  # tables of one symbol each
BEYOND_BYTE = b"\xfe\3\2\x11"  # 255 and 256
OWN = b"\0"  # reference: the tables follow
WITH_CHANNEL_SCALE = bytes([3, 8])  # 3 bits; scale, then a factor for each of two channels
GAPS_1_0 = struct.Struct("<IIIB")  # entries, gaps, bytes of gaps, gap width

REFUSED = {
    "empty table, first symbol not 0": (13, (0,), b"\1\5\0", "without symbols is not 0"),
    "gaps too wide, no elements": (7, (0,), GRID + b"\1" + OWN + TWO + OWN + EMPTY, "out of range"),
    "masks too wide": (9, (1,), GRID + b"\1\1\1" + OWN + TWO + OWN + THREE, "out of range"),
    "masks too wide, no elements": (9, (0,), GRID + b"\1\1\1" + OWN + TWO + OWN + EMPTY, "out of range"),
    "zero among nonzero levels of 7": (7, (1,), GRID + b"\1" + OWN + ZERO + OWN + ZERO + b"\1", "zero level"),
    "zero among nonzero levels of 8": (8, (1,), GRID + OWN + ZERO + b"\1", "zero level"),
    "zero in 8, no elements": (8, (0,), GRID + OWN + ZERO, "zero level"),
    "zero among nonzero levels of 9": (9, (1,), GRID + b"\1\1\1" + OWN + ONE + OWN + ZERO, "zero level"),
    "last gap a filler": (7, (4,), GRID + b"\1" + OWN + ONE + OWN + EMPTY + b"\1", "a filler"),
    "more gaps than elements": (7, (1,), GRID + b"\1" + OWN + ZERO + OWN + ONE + b"\2", "more gaps"),
    "gaps in a long varint": (7, (1,), GRID + b"\1" + OWN + ZERO + OWN + ONE + b"\x81\0", "fewest bytes"),
    "level of no code": (6, (1,), GRID + OWN + b"\x08\1\1", "stands for no code"),
    "plane beyond a byte": (13, (1,), b"\1" + BEYOND_BYTE + b"\0", "is no byte"),
    "bytes after byte planes": (4, (1,), zlib.compress(b"\0") + b"\0", "bytes follow"),
    "mixed contexts, a byte more": (10, (0,), GRID + b"\0", "left over"),
    "mixed contexts, no shortest end": (10, (1,), GRID + b"\xff\xff", "another end"),
    "mixed contexts, a long row": (10, (1, (1 << 20) + 1), GRID, "too long"),
    "infinite before its factor": (
        5,
        (2,),
        WITH_CHANNEL_SCALE + floats(3e38, 1e-5, 0) + b"\x36",
        "not finite",
    ),
    "infinite after its factor": (5, (2,), WITH_CHANNEL_SCALE + floats(3e30, 1, 1e8) + b"\x36", "not finite"),
    "1.0, last gap a filler": (3, (4,), GRID + GAPS_1_0.pack(0, 1, 0, 1) + b"\x10\0\0\0\0", "a filler"),
    "1.0, stored zero": (3, (4,), GRID + GAPS_1_0.pack(1, 1, 0, 1) + b"\1\0\x10\0\0", "stored code is 0"),
    "1.0, symbol of no code": (1, (1,), GRID + b"\7", "stands for no code"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_both(case):
    encoding, shape, blob, reason = REFUSED[case]
    element_type = TensorProto.UINT8 if encoding in {4, 13} else FLOAT
    check_refusal(one_tensor(encoding, shape, blob, element_type), reason)


def test_shared_group_of_another_size_is_refused():
    line = Line("w", FLOAT, (1,), 6, GRID + b"\1")
    check_refusal(file_of(line, tables=b"\1\2" + THREE + THREE), "another number of tables")


@pytest.mark.parametrize("path", GOLDEN_FILES[:1], ids=lambda path: path.stem)
def test_reference_refuses_every_truncation(path):
    data = path.read_bytes()
    for end in range(0, len(data), 7):
        assert isinstance(reference_reading(data[:end], LIMIT), Refused)


def test_codeword_that_is_never_used_may_stand_for_no_code():
    # levels 3 and 4, of which 3 bits allow the first
    check_agreement(one_tensor(6, (2,), GRID + b"\0" + b"\6\2\x11" + b"\0"))


def test_negative_zero_of_a_code_that_is_no_exact_zero_stays():
    blob = WITH_CHANNEL_SCALE + floats(0.5, 0, -0.0) + b"\x2e"  # codes 3 and 2
    check_agreement(one_tensor(5, (2,), blob))


def with_external_data(tensor):
    tensor.data_location = TensorProto.EXTERNAL


def training_node(model):
    return model.training_info.add().algorithm.node.add(op_type="Constant")


GRAPHS = {
    "in a node": lambda m: with_external_data(m.graph.node[0].attribute.add(name="v").t),
    "named only": lambda m: (
        m.graph.node[0].attribute.add(name="v").t.external_data.add(key="location", value="x")
    ),
    "in a sparse tensor": lambda m: with_external_data(
        m.graph.node[0].attribute.add(name="v").sparse_tensor.values
    ),
    "in a function": lambda m: with_external_data(m.functions.add().node.add().attribute.add(name="v").t),
    "in a function's default": lambda m: with_external_data(
        m.functions.add().attribute_proto.add(name="v").t
    ),
    "in a training graph": lambda m: with_external_data(training_node(m).attribute.add(name="v").t),
    "initializer": lambda m: m.graph.initializer.add(name="x"),
    "sparse initializer": lambda m: m.graph.sparse_initializer.add(),
    "initializer in a node": lambda m: m.graph.node[0].attribute.add(name="g").g.initializer.add(name="x"),
    "initializer in a function": lambda m: (
        m.functions.add().node.add().attribute.add().g.initializer.add(name="x")
    ),
    "initializer in a training graph": lambda m: m.training_info.add().initialization.initializer.add(
        name="x"
    ),
}


@pytest.mark.parametrize("place", GRAPHS)
def test_weights_in_the_graph_are_refused(place):
    model = onnx.ModelProto.FromString(tiny_graph())
    GRAPHS[place](model)
    data = assemble(Parts((), graph=model.SerializeToString()))
    assert isinstance(reference_reading(data, LIMIT), Refused)
    assert disagreement(data, max_decoded_bytes=LIMIT) is None
