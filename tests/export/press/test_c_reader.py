"""The reader in C reads what the product reads, on every machine, and refuses what it refuses."""

import ctypes
import random
import subprocess
import sys
import unicodedata
import zlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelpress.export.coding import slabs
from modelpress.export.press.encodings import mixed_contexts
from modelpress.export.press.encodings.kernels import kernel_mask
from modelpress.export.press.reading import open_artifact
from modelpress.export.press.writing import encode_artifact
from modelpress.export.quantized import QuantizedTensor
from tests.helpers import c_reader
from tests.helpers.c_compilers import HOST, TARGETS, TESTS, Target, build
from tests.helpers.c_vectors import vectors
from tests.helpers.models import sparse_model
from tests.helpers.paths import GOLDEN, ROOT
from tests.helpers.samples import in_every_encoding, quantized
from tests.reference import mixed_reference, streams
from tests.reference.agreement import little_endian, reference_reading
from tests.reference.plain_reference import unpacked_lzma
from tests.reference.press_reference import Refused, check_graph
from tests.reference.press_writer import Parts, assemble, squeezed, tiny_graph

LIMIT = 1 << 24


def run(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, check=False)


# --- The example


@pytest.fixture(scope="module")
def read_press(tmp_path_factory):
    """The program of `examples/c`."""
    out = tmp_path_factory.mktemp("c") / "read_press"
    return build(HOST, out, [ROOT / "examples" / "c" / "read_press.c"])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Golden files, and one of many tensors with shared tables."""
    path = tmp_path_factory.mktemp("files") / "max.press"
    path.write_bytes(encode_artifact(sparse_model(), effort="max"))
    return [*sorted(GOLDEN.glob("*.press")), path]


def test_example_reads_every_tensor_bit_for_bit(read_press, files):
    for path in files:
        with open_artifact(path) as artifact:
            for usage in artifact.stored():
                tensor = usage.tensor
                values = tensor.dequantize() if isinstance(tensor, QuantizedTensor) else tensor
                done = run(read_press, path, "--tensor", usage.record.name)
                assert (done.returncode, done.stderr) == (0, b"")
                assert done.stdout == little_endian(np.asarray(values))
                crc = f"crc32 {zlib.crc32(done.stdout):08x}".encode()
                listed = run(read_press, path).stdout.splitlines()
                assert (
                    sum(line.startswith(usage.record.name.encode()) and line.endswith(crc) for line in listed)
                    == 1
                )
            graph = onnx.ModelProto.FromString(run(read_press, path, "--graph").stdout)
            assert graph == artifact.graph


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"PK\3\4" + data[4:], "not a .press file"),
        (lambda data: data[:-1], "the file is shorter or longer than it declares; copy it again"),
        (lambda data: data[:100] + b"?" + data[101:], "bytes changed since the file was written"),
        (lambda data: data[:8] + b"\2" + data[9:], "a newer modelpress wrote this file"),
    ],
)
def test_example_says_what_is_wrong(read_press, tmp_path, change, message):
    path = tmp_path / "bad.press"
    path.write_bytes(change((GOLDEN / "v1.1-small.press").read_bytes()))
    done = run(read_press, path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"{path}: {message}\n"


def test_example_names_what_is_missing(read_press, tmp_path):
    done = run(read_press, GOLDEN / "v1.1-small.press", "--tensor", "fc.wieght")
    assert done.returncode == 1
    assert b"fc.wieght: there is no tensor of this name; without --tensor all are listed" in done.stderr
    assert run(read_press, tmp_path / "absent").stderr.endswith(b"absent: cannot be read\n")
    assert run(read_press).returncode == 2


# --- Everywhere the same


@pytest.mark.parametrize("name", TARGETS)
def test_the_same_bytes_on_every_machine(name, tmp_path):
    target = TARGETS[name]
    program = build(target, tmp_path / "check", [TESTS / "check_vectors.c", TESTS / "read_whole.c"])
    (tmp_path / "vectors").write_bytes(vectors())
    done = run(*target.emulator, program, tmp_path / "vectors")
    assert done.stdout.endswith(b" 0 differ\n"), done.stdout + done.stderr
    assert done.returncode == 0


def test_cortex_m4_has_room_for_it(tmp_path):
    Target("arm-none-eabi-gcc").command()
    done = run("make", "-s", "-C", ROOT / "examples" / "c", f"BUILD={tmp_path}", "sizes")
    assert done.returncode == 0, done.stderr
    sizes = [int(line.split()[0]) for line in done.stdout.decode().splitlines()[1:5]]
    decoders, whole, *_ = sizes
    assert decoders <= 12_000
    assert whole <= 24_000


def test_fuzzer_runs_on_its_corpus(tmp_path):
    fuzzing = ROOT / "tests" / "fuzzing"
    sources = [fuzzing / name for name in ("fuzz_press.c", "mutate_press.c", "without_libfuzzer.c")]
    program = build(HOST, tmp_path / "fuzz", sources, "-DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION")
    corpus = sorted((fuzzing / "corpus").glob("*.press"))
    done = run(program, 40, *corpus)
    assert done.stdout == f"{len(corpus)} files, 40 changes of each\n".encode(), done.stderr
    assert len(corpus) > 100


# --- Against the reference; mutants are in test_mutants.py


def test_several_slabs(monkeypatch):
    for module in (slabs, streams, mixed_reference):
        monkeypatch.setattr(module, "SLAB_ELEMENTS", 64)
    monkeypatch.setattr(mixed_contexts, "_SLAB_ELEMENTS", 64)
    monkeypatch.setattr(kernel_mask, "SLAB_ELEMENTS", 64)
    monkeypatch.setattr(streams, "KERNEL_SLAB_ELEMENTS", 64)
    for tensor in (quantized((5, 4, 3, 3), flags="ospc"), np.arange(200, dtype=np.int16)):
        for line in in_every_encoding(tensor):
            data = assemble(Parts((line,)))
            reading = reference_reading(data, LIMIT)
            assert not isinstance(reading, Refused)
            assert c_reader.disagreement(data, reading, LIMIT, *c_reader.SMALL_SLABS) is None


def test_names_that_differ_by_ascii_case_alone_are_refused():
    line = in_every_encoding(np.zeros(3, np.float32))[0]
    for names, is_good in ((("a", "b", "c"), True), (("b", "a", "B"), False), (("aé", "aÉ", "b"), True)):
        lines = tuple(line.__class__(**{**vars(line), "name": name}) for name in names)
        found, _ = c_reader.read_whole(assemble(Parts(lines)), LIMIT)
        assert (found is not None) == is_good


def test_printable_characters_are_those_of_python():
    is_text = c_reader.library().press_is_text
    known = [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) not in {"Cn", "Cs"}]
    edges = {c + step for c in range(1, len(known)) for step in (-1, 0) if is_edge(known, c)}
    for character in map(known.__getitem__, sorted(edges)):
        data = character.encode()
        # the table is of one version of Unicode, and later ones have more characters
        if unicodedata.unidata_version == "14.0.0" or not character.isprintable():
            assert bool(is_text(data, len(data), 1)) == character.isprintable(), hex(ord(character))


def is_edge(known, k):
    """Whether a character and the one before differ, or others lie between."""
    return known[k].isprintable() != known[k - 1].isprintable() or ord(known[k]) - ord(known[k - 1]) > 1


def test_all_printable_characters_make_a_text():
    if unicodedata.unidata_version != "14.0.0":
        pytest.skip("the table is of Unicode 14")
    data = "".join(filter(str.isprintable, map(chr, range(sys.maxunicode + 1)))).encode()
    assert c_reader.library().press_is_text(data, len(data), 1)


@pytest.mark.parametrize(
    "data", [b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80", b"\xff"]
)
def test_what_is_no_utf_8_is_refused(data):
    assert not c_reader.library().press_is_text(data, len(data), 0)


# --- Its own checksums, inflater and protobuf


def inflated(data, size):
    """What the inflater makes of a stream, or None."""
    out = ctypes.create_string_buffer(size + 1)
    refused = c_reader.library().press_inflate(data, len(data), out, size)
    return None if refused else out.raw[:size]


def zlib_inflated(data, size):
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(data, size + 1)
    except zlib.error:
        return None
    return found if len(found) == size and inflater.eof and not inflater.unused_data else None


def streams_of(text):
    """Stored, fixed and dynamic blocks."""
    for level, strategy in ((0, 0), (1, zlib.Z_FIXED), (9, 0), (6, zlib.Z_HUFFMAN_ONLY), (6, zlib.Z_RLE)):
        packer = zlib.compressobj(level, zlib.DEFLATED, 15, 9, strategy)
        yield packer.compress(text) + packer.flush()


def test_inflating_as_zlib_does():
    rng = random.Random(1)
    texts = [b"", b"a", rng.randbytes(70_000), b"weight bias " * 9000, bytes(rng.choices(range(60), k=4000))]
    for text in texts:
        for data in streams_of(text):
            assert inflated(data, len(text)) == text
            assert inflated(data, len(text) + 1) is None
            assert inflated(data + b"\0", len(text)) is None
            assert inflated(data[:-1], len(text)) is None


def test_damaged_streams_are_judged_as_by_zlib():
    rng = random.Random(2)
    text = bytes(rng.choices(b"abcdefgh", weights=[9, 8, 4, 3, 2, 1, 1, 1], k=90)) + b"abcdefgh" * 5
    bases = list(streams_of(text))
    for _ in range(8000):
        data = bytearray(rng.choice(bases))
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data) - 4)] = rng.randrange(256)
        checked = zlib.decompressobj(-15)  # without the checksum, so that more than refusals are compared
        try:
            found = checked.decompress(bytes(data[2:-4]))
        except zlib.error:
            found = b""
        data[-4:] = zlib.adler32(found).to_bytes(4, "big")
        assert inflated(bytes(data), len(found)) == zlib_inflated(bytes(data), len(found)), bytes(data).hex()


def unsqueezed(data, size, properties, *, before=b"", is_whole=True):
    """What the LZMA decoder makes of a stream, or None."""
    reader = c_reader.library()
    out = ctypes.create_string_buffer(size + 1)
    room = ctypes.create_string_buffer(2 * reader.press_lzma_probabilities(properties))
    refused = reader.press_unlzma(
        data, len(data), properties, room, before, len(before), out, size, int(is_whole)
    )
    return None if refused else out.raw[:size]


def reference_unsqueezed(data, size, properties):
    try:
        return unpacked_lzma(data, size, properties)
    except Refused:
        return None


@pytest.mark.parametrize("properties", [0, 3, 4 + 90, 2 + 18, 27 + 135, 1 + 9 * 3 + 180])
def test_lzma_as_liblzma_has_it(properties):
    rng = random.Random(properties)
    texts = [b"", b"a", bytes(5000), rng.randbytes(30_000), b"weight bias " * 900, bytes(range(256)) * 20]
    texts += [
        bytes(rng.choices(range(60), k=4000)) + b"".join(rng.choices([b"abcdefghi", b"xyz", b"0"], k=3000))
    ]
    for text in texts:
        data = squeezed(text, properties)
        assert unsqueezed(data, len(text), properties) == text
        assert unsqueezed(data, len(text) + 1, properties) is None
        assert unsqueezed(data, max(len(text) - 1, 0), properties) == (None if text else b"")
        assert unsqueezed(data + b"\0", len(text), properties) is None
        assert unsqueezed(data[:-1], len(text), properties) is None

        half = len(text) // 3
        front = unsqueezed(data, half, properties, is_whole=False)
        assert front == text[:half]
        rest = unsqueezed(data, len(text) - half, properties, before=front)
        assert rest == text[half:]


def test_damaged_lzma_is_judged_as_by_liblzma():
    rng = random.Random(4)
    text = bytes(rng.choices(b"abcdefgh", weights=[9, 8, 4, 3, 2, 1, 1, 1], k=90)) + b"abcdefgh" * 9
    verdicts = []
    for _ in range(4000):
        properties = rng.choice([0, 3, 90 + 9])
        data = bytearray(squeezed(text, properties))
        for _ in range(rng.choice([0, 1, 1, 2])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        size = len(text) + rng.choice([0, 0, 0, -1, 1])
        found = reference_unsqueezed(bytes(data), size, properties)
        assert unsqueezed(bytes(data), size, properties) == found, bytes(data).hex()
        verdicts.append(found is not None)
    assert 0.05 < sum(verdicts) / len(verdicts) < 0.9


def test_crc_as_zlib_has_it():
    for data in (b"", b"123456789", bytes(range(256)) * 5):
        assert c_reader.library().press_crc32(data, len(data)) == zlib.crc32(data)


def nested_graph():
    """Messages of most kinds: subgraphs, tensors and types in attributes, functions, training."""
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [2], [1.0, 2.0])
    sparse = helper.make_sparse_tensor(tensor, helper.make_tensor("i", TensorProto.INT64, [2], [0, 3]), [5])
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=tensor, ints=[1, 2], s="x")], "inner", [], []
    )
    shape = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])
    listed = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.INT64, [1]))
    nodes = [
        helper.make_node("If", ["b"], ["y"], then_branch=inner, graphs=[inner], floats=[1.5], tp=listed),
        helper.make_node("Constant", [], ["s"], sparse_value=sparse, tensors=[tensor]),
    ]
    graph = helper.make_graph(nodes, "g", [shape], [shape], doc_string="d")
    model = helper.make_model(graph)
    model.functions.append(
        helper.make_function("f", "F", ["a"], ["b"], nodes[:1], [helper.make_opsetid("", 13)])
    )
    model.training_info.add().algorithm.CopyFrom(inner)
    helper.set_model_props(model, {"k": "v"})
    return model.SerializeToString(deterministic=True)


def is_good_graph(data):
    try:
        check_graph(data)
    except Refused:
        return False
    return True


def test_graphs_are_judged_as_by_protobuf():
    rng = random.Random(3)
    bases = [nested_graph(), tiny_graph()]
    verdicts = []
    for k in range(3000):
        data = bytearray(bases[k % 2])
        for _ in range(rng.randint(0, 3)):
            at = rng.randrange(len(data))
            data[at] = rng.choice([data[at] ^ 1 << rng.randrange(8), data[at] + 1 & 255, rng.randrange(256)])
        verdicts.append(is_good_graph(bytes(data)))
        refused = c_reader.library().press_check_graph(bytes(data), len(data))
        assert (refused == 0) == verdicts[-1], bytes(data).hex()
    assert 0.1 < sum(verdicts) / len(verdicts) < 0.9


@pytest.mark.parametrize(
    "where", ["graph.initializer", "graph.sparse_initializer", "external", "function", "training", "metadata"]
)
def test_a_graph_that_is_not_complete_in_itself_is_refused(where):
    model = onnx.ModelProto.FromString(nested_graph())
    if where == "graph.initializer":
        model.graph.initializer.add()
    elif where == "graph.sparse_initializer":
        model.graph.sparse_initializer.add()
    elif where == "external":
        model.graph.node[1].attribute[0].sparse_tensor.values.data_location = TensorProto.EXTERNAL
    elif where == "function":
        model.functions[0].node[0].attribute[0].g.initializer.add()
    elif where == "training":
        model.training_info[0].algorithm.node[0].attribute[0].t.external_data.add(key="location", value="x")
    data = model.SerializeToString()
    if where == "metadata":
        data = data.replace(b"\x0a\x01k\x12\x01v", b"\x0a\x01k\x12\x01\xff")
    assert not is_good_graph(data)
    assert c_reader.library().press_check_graph(data, len(data))
