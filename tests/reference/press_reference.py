"""The file, the directory, the graph; `decode` is the whole decoder.

Written from export/FORMAT.md alone, to be read beside it: nothing here is fast, and nothing is shared with `export`.
"""

import hashlib
import math
import struct
import unicodedata
import zlib
from dataclasses import dataclass, replace

import onnx
from google.protobuf.message import DecodeError

from tests.reference import plain_reference, quantized_reference, split_reference, version_1_0_reference
from tests.reference.grid import FLOAT16, Grid, read_grid, read_grid_of_1_0
from tests.reference.linked_reference import decode_linked
from tests.reference.mixed_reference import MixedModel, decode_mixed
from tests.reference.plain_reference import (
    ITEM_SIZES,
    check_elements,
    check_few_bits,
    inflated,
    lzma_elements,
    unpacked_lzma,
)
from tests.reference.sign_rows_reference import sign_rows
from tests.reference.streams import Refused, Stream, read_code_table, require

__all__ = ["ReferenceModel", "ReferenceTensor", "Refused", "decode", "dequantized"]

MIB = 1 << 20
PLAIN = {
    0: plain_reference.raw,
    4: plain_reference.byte_planes,
    11: plain_reference.float16,
    12: plain_reference.bfloat16,
    13: plain_reference.coded_planes,
}
QUANTIZED = {
    5: quantized_reference.packed,
    6: quantized_reference.huffman,
    7: quantized_reference.csr_huffman,
    8: quantized_reference.bitmap_huffman,
    9: quantized_reference.kernel_masks,
    17: sign_rows,
}
MIXED, LINKED = 10, 20
SPLIT = {14, 15, 21}
IN_ORDER = {MIXED, 15, LINKED, 21}
ANY_BITS = 16
LZMA, SAME = 18, 19
QUANTIZED_1_0 = {
    1: version_1_0_reference.packed,
    2: version_1_0_reference.huffman,
    3: version_1_0_reference.csr_huffman,
}


@dataclass
class ReferenceTensor:
    """Either ``raw`` (bytes of the elements), or ``grid`` and ``codes`` (None outside the support)."""

    name: str
    shape: tuple
    element_type: int
    encoding: int
    raw: bytes | None = None
    grid: Grid | None = None
    codes: list | None = None

    @property
    def support(self):
        return [code is not None for code in self.codes] if self.grid.has_support else None


@dataclass
class ReferenceModel:
    graph: bytes
    tensors: list


def decode(data, max_decoded_bytes=2 << 30):
    """The model in a `.press` file, or `Refused`."""
    chunks = read_chunks(bytes(data))
    if b"META" in chunks:
        directory, graph = unpacked_meta(chunks[b"META"])
        records = read_directory(directory)
    else:
        graph = inflated_chunk(chunks[b"GRPH"])
        records = read_directory_1_1(inflated_chunk(chunks[b"TDIR"]))
    check_graph(graph)
    shared = shared_tables(chunks)
    size = sum(math.prod(record.shape) * ITEM_SIZES[record.element_type] for record in records)
    require(size <= max_decoded_bytes, "tensors are larger than the limit")
    blobs = Stream(chunks[b"DATA"])
    mixed = MixedModel()  # learns from one tensor to the next
    tensors = []
    for record in records:
        blob = blobs.take(record.length)
        require(record.crc in {None, zlib.crc32(blob)}, "CRC-32 of a blob differs")
        if record.encoding == SAME:
            tensors.append(same_tensor(record, blob, tensors))
        else:
            tensors.append(read_tensor(record, blob, shared, mixed))
    blobs.finish()
    return ReferenceModel(graph, tensors)


def same_tensor(record, blob, before):
    """One that was read before, under another name."""
    stream = Stream(blob)
    number = stream.varint()
    stream.finish()
    require(number < len(before), "a tensor that is not an earlier one")
    other = before[number]
    require(
        (other.shape, other.element_type) == (record.shape, record.element_type), "another kind of tensor"
    )
    require(other.encoding not in {*IN_ORDER, SAME}, "a tensor that none can be the same as")
    return replace(other, name=record.name, encoding=SAME)


def dequantized(tensor):
    """Bytes of the elements: little-endian, row-major."""
    if tensor.raw is not None:
        return tensor.raw
    exact_zero = 0 if tensor.grid.offset is None else None
    values = [
        0.0 if code == exact_zero else tensor.grid.value(code, tensor.grid.channel_of(k))
        for k, code in enumerate(tensor.codes)
    ]
    letter = "e" if tensor.element_type == FLOAT16 else "f"
    return struct.pack(f"<{len(values)}{letter}", *values)


# --- File and chunks


def read_chunks(data):
    file = Stream(data)
    require(file.take(8) == b"\x89PRESS\r\n", "not a .press file")
    require(file.integer(2) == 1, "another major version")
    file.integer(2)  # any minor version
    n_chunks = file.integer(4)
    require(n_chunks <= 64, "more than 64 chunks")
    require(file.integer(8) == len(data), "the file has another length than declared")
    digest = file.take(32)
    require(digest == hashlib.sha256(data[:24] + data[56:]).digest(), "SHA-256 differs")
    chunks = {}
    for _ in range(n_chunks):
        kind = file.take(4)
        require(kind.isalpha(), "a chunk type is not four letters")
        payload = file.take(file.integer(8))
        if kind in {b"GRPH", b"TDIR", b"META", b"TABL", b"TABZ", b"DATA"}:
            require(kind not in chunks, "a chunk occurs twice")
            chunks[kind] = payload
        else:
            require(not kind[:1].isupper(), "an unknown critical chunk")
    file.finish()
    needed = [{b"META"}, {b"GRPH", b"TDIR"}]
    require(
        chunks.keys() & needed[0] | chunks.keys() & needed[1] in needed, "a chunk is missing, or one too many"
    )
    require(b"DATA" in chunks, "a chunk is missing")
    require(not {b"TABL", b"TABZ"} <= chunks.keys(), "TABL beside TABZ")
    return chunks


def unpacked_meta(payload):
    stream = Stream(payload)
    sizes = stream.integer(4), stream.integer(4)
    require(max(sizes) <= 8 * MIB, "more than 8 MiB")
    both = unpacked_lzma(stream.rest(), sum(sizes), 0)
    return both[: sizes[0]], both[sizes[0] :]


def inflated_chunk(payload):
    stream = Stream(payload)
    size = stream.integer(4)
    require(size <= 8 * MIB, "more than 8 MiB")
    return inflated(stream.rest(), size)


def shared_tables(chunks):
    if b"TABZ" in chunks:
        stream = Stream(chunks[b"TABZ"])
        size = stream.integer(4)
        require(size <= MIB, "TABZ is larger than 1 MiB")
        return read_shared_tables(unpacked_lzma(stream.rest(), size, 0))
    return read_shared_tables(chunks[b"TABL"]) if b"TABL" in chunks else []


def read_shared_tables(payload):
    require(len(payload) <= MIB, "TABL is larger than 1 MiB")
    stream = Stream(payload)
    groups = [[read_code_table(stream) for _ in range(stream.integer(1))] for _ in range(stream.integer(1))]
    stream.finish()
    return groups


# --- Graph


def check_graph(data):
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise Refused("the graph is no ModelProto") from None
    texts = [text for entry in model.metadata_props for text in (entry.key, entry.value)]
    require(all(isinstance(text, str) for text in texts), "metadata are not UTF-8")  # else they come as bytes
    check_messages(model)
    check_work(model)


MAX_NODES, MAX_DEPTH = 1 << 17, 64


def check_work(model):
    """Functions are written out, so to speak: node by node, until there are too many."""
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    require(len(functions) == len(model.functions), "two functions are called the same")
    for function in model.functions:
        check_depth(function, functions, ())
    trainings = [graph for info in model.training_info for graph in (info.initialization, info.algorithm)]
    left = MAX_NODES
    for graph in (model.graph, *trainings):
        left = written_out(graph.node, functions, left)


def check_depth(function, functions, callers):
    key = (function.domain, function.name, function.overload)
    require(key not in callers and len(callers) < MAX_DEPTH, "functions call each other too deep")
    for node in {call(node): node for node in all_nodes(function.node)}.values():
        if call(node) in functions:
            check_depth(functions[call(node)], functions, (*callers, key))


def written_out(nodes, functions, left):
    """How many more nodes there may be after these."""
    for node in all_nodes(nodes):
        left -= 1
        require(left >= 0, "the graph comes to too many nodes")
        if call(node) in functions:
            left = written_out(functions[call(node)].node, functions, left)
    return left


def all_nodes(nodes):
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from all_nodes(graph.node)


def call(node):
    return (node.domain, node.op_type, node.overload)


def check_messages(message):
    """Looks at every message inside; the protobuf parser bounds their depth."""
    if isinstance(message, onnx.GraphProto):
        require(not message.initializer and not message.sparse_initializer, "the graph holds an initializer")
    if isinstance(message, onnx.TensorProto):
        external = message.data_location == onnx.TensorProto.EXTERNAL or message.external_data
        require(not external, "a tensor lies in another file")
    for field in message.DESCRIPTOR.fields:
        if field.message_type is None:
            continue
        if field.is_repeated:
            for child in getattr(message, field.name):
                check_messages(child)
        elif message.HasField(field.name):
            check_messages(getattr(message, field.name))


# --- Directory


@dataclass
class Record:
    name: str
    element_type: int
    shape: tuple
    encoding: int
    crc: int
    length: int


def read_directory(data):
    stream = Stream(data)
    return read_records(stream, stream.varint(), read_record)


def read_directory_1_1(data):
    stream = Stream(data)
    return read_records(stream, stream.integer(4), read_record_1_1)


def read_records(stream, n, read):
    require(n <= 65536, "more than 65,536 tensors")
    records = [read(stream) for _ in range(n)]
    stream.finish()
    names = {unicodedata.normalize("NFC", record.name).casefold() for record in records}
    require(len(names) == n, "names are equal after normalisation and case folding")
    return records


def read_record(stream):
    name = read_name(stream, stream.varint())
    encoding, element_type, n_dimensions = (stream.integer(1) for _ in range(3))
    require(n_dimensions <= 8, "more than 8 dimensions")
    shape = tuple(stream.varint() for _ in range(n_dimensions))
    return checked(Record(name, element_type, shape, encoding, None, stream.varint()))


def read_record_1_1(stream):
    name = read_name(stream, stream.integer(2))
    element_type, n_dimensions = stream.integer(1), stream.integer(1)
    require(n_dimensions <= 8, "more than 8 dimensions")
    shape = tuple(stream.integer(4) for _ in range(n_dimensions))
    return checked(Record(name, element_type, shape, stream.integer(1), stream.integer(4), stream.integer(8)))


def read_name(stream, size):
    require(1 <= size <= 1024, "a name has 1 to 1,024 bytes")
    try:
        name = stream.take(size).decode()
    except UnicodeDecodeError:
        raise Refused("a name is not UTF-8") from None
    require(name.isprintable(), "a name has characters that are not printable")
    return name


def checked(record):
    require(record.element_type in ITEM_SIZES, "unknown element type")
    require(math.prod(size or 1 for size in record.shape) < 1 << 32, "the dimensions are too large")
    return record


# --- Tensors


def read_tensor(record, blob, shared, mixed):
    tensor = ReferenceTensor(record.name, record.shape, record.element_type, record.encoding)
    stream, n = Stream(blob), math.prod(record.shape)
    if record.encoding in PLAIN:
        elements = PLAIN[record.encoding](stream, record.element_type, n)
        tensor.raw = check_elements(elements, record.element_type)
    elif record.encoding in SPLIT:
        tensor.raw = split_reference.split_values(stream, record, n, shared, mixed)
        check_few_bits(tensor.raw, record.element_type)
    elif record.encoding == ANY_BITS:
        require(record.element_type != plain_reference.BOOL, "bools are not stored as any bits")
        tensor.raw = plain_reference.raw(stream, record.element_type, n)
        check_few_bits(tensor.raw, record.element_type)
    elif record.encoding == LZMA:
        tensor.raw = lzma_elements(stream, record.element_type, n)
        check_few_bits(tensor.raw, record.element_type)
    elif record.encoding in QUANTIZED or record.encoding in {MIXED, LINKED}:
        grid = tensor.grid = read_grid(stream, record.shape, record.element_type)
        if record.encoding == MIXED:
            levels = decode_mixed(stream, grid, mixed)
        elif record.encoding == LINKED:
            levels = decode_linked(stream, grid, mixed)
        else:
            levels = QUANTIZED[record.encoding](stream, grid, n, shared)
        tensor.codes = codes_of(levels, grid)
    elif record.encoding in QUANTIZED_1_0:
        tensor.grid = read_grid_of_1_0(stream, record.shape, record.element_type)
        tensor.codes = QUANTIZED_1_0[record.encoding](stream, tensor.grid, n)
    else:
        raise Refused("unknown encoding: the file needs a newer reader")
    stream.finish()
    if tensor.codes is not None:
        check_elements(dequantized(tensor), record.element_type)
    return tensor


def codes_of(levels, grid):
    meaning = grid.codes_of_levels()
    codes = []
    for element, level in enumerate(levels):
        own = meaning[grid.channel_of(element) if grid.per_channel else 0]
        require(level in own, "a level stands for no code")
        codes.append(own[level])
    return codes
