"""One function for each part of a file: from a generator of random numbers and parts of a good file to a bad file."""

import struct
import unicodedata
import zlib
from dataclasses import replace

import onnx
from onnx import TensorProto, helper

from tests.fuzz import INTERESTING, bases, damaged, damaged_shape, mutant, with_line
from tests.reference.press_writer import assemble, varint

MANY_TABLES_ONE_IN = 4000  # files of 65,025 tables take a second each
NAMES = (
    *("", "w", "w0", "W0", "ẞ", "ss", "Å", unicodedata.normalize("NFD", "Å")),
    *("a\0", "\u202e", "n" * 1024, "n" * 1025),
)
U32 = (
    0,
    1,
    2,
    255,
    256,
    65_535,
    65_536,
    65_537,
    1 << 24,
    (1 << 24) + 1,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
)


# --- The directory: what it says of a tensor contradicts the blob, the other tensors, or itself


def directory(rng, parts):
    lines, number = _damaged_lines(rng, parts)
    if not parts.is_joint:
        packed = struct.pack("<I", number % 2**32)  # the largest number may have been counted up
        return assemble(parts, directory=packed + b"".join(map(_packed_1_1, lines)))
    padding = rng.choice([0] * 9 + [1])
    data = varint(number, padding=padding) + b"".join(_packed(line, padding) for line in lines)
    return assemble(parts, directory=data)


def _damaged_lines(rng, parts):
    """What is said of each tensor, and of their number."""
    lines = [
        {
            "name": line.name.encode(),
            "name_bytes": None,
            "type": line.element_type,
            "shape": list(line.shape),
            "axes": None,
            "encoding": line.encoding,
            "crc": zlib.crc32(line.blob),
            "length": len(line.blob),
        }
        for line in parts.lines
    ]
    number = len(lines)
    for _ in range(rng.choice([1, 1, 2])):
        line, other = rng.choice(lines), rng.choice(lines)
        match rng.randrange(11):
            case 0:
                number = rng.choice([number + 1, max(number - 1, 0), *U32])
            case 1:
                lines.insert(rng.randrange(len(lines) + 1), dict(line))
                number = rng.choice([number, len(lines)])
            case 2:
                rng.shuffle(lines)
            case 3:
                line["length"], other["length"] = other["length"], line["length"]
            case 4:  # the sum stays
                moved = rng.choice([1, line["length"], 1 << 40])
                line["length"] = (line["length"] - moved) % (1 << 64)
                other["length"] = (other["length"] + moved) % (1 << 64)
            case 5:
                line["name"] = rng.choice(NAMES).encode()
            case 6:
                line["name_bytes"] = rng.choice([0, len(line["name"]) + 1, 65_535])
            case 7:
                line["shape"] = list(damaged_shape(rng, line["shape"]))
            case 8:
                line["axes"] = rng.choice([0, 8, 9, 255])
            case 9:
                line["shape"] = [rng.choice(U32) for _ in range(rng.randrange(9))]
            case _:
                key = rng.choice(["type", "encoding", "crc"])
                line[key] = rng.choice([line[key] ^ 1, rng.randrange(256)])
    return lines, number


def _packed(line, padding):
    name, shape, n_name, n_axes = _counted(line)
    return (
        varint(n_name)
        + name
        + bytes([line["encoding"] % 256, line["type"] % 256, n_axes])
        + b"".join(varint(size, padding=padding) for size in shape)
        + varint(line["length"] % (1 << 63))
    )


def _counted(line):
    """Name and shape, and what is said of their lengths."""
    name, shape = line["name"], line["shape"]
    n_name = len(name) if line["name_bytes"] is None else line["name_bytes"]
    return name, shape, n_name, len(shape) if line["axes"] is None else line["axes"]


def _packed_1_1(line):
    name, shape, n_name, n_axes = _counted(line)
    return (
        struct.pack("<H", n_name)
        + name
        + struct.pack(f"<BB{len(shape)}I", line["type"] % 256, n_axes, *(size % (1 << 32) for size in shape))
        + struct.pack("<BIQ", line["encoding"] % 256, line["crc"], line["length"])
    )


# --- Shared code tables


def tables(rng, parts):
    if not rng.randrange(MANY_TABLES_ONE_IN):
        return assemble(parts, tables=many_tables(rng.choice([b"\0\2\x11", b"\0\1\1", b"\0\0"])))
    groups = [
        b"".join(_table(rng) for _ in range(rng.choice([0, 1, 1, 2, 3, 8])))
        for _ in range(rng.choice([0, 1, 1, 2, 4]))
    ]
    counts = [rng.choice([0, 1, 2, 3, 255]) if rng.random() < 0.2 else 1 for _ in groups]
    data = bytes([len(groups)]) + b"".join(
        bytes([n]) + group for n, group in zip(counts, groups, strict=True)
    )
    return assemble(parts, tables=data if rng.random() < 0.7 else damaged(rng, data))


def many_tables(table):
    """255 groups of 255 equal tables: 65,025 in all."""
    return bytes([255]) + (bytes([255]) + 255 * table) * 255


def _table(rng):
    """One code table: a prefix code, or nearly one."""
    lengths = _code_lengths(rng, rng.choice([0, 1, 2, 3, 5, 16, 40]))
    if lengths and rng.random() < 0.5:
        k = rng.randrange(len(lengths))
        lengths[k] = rng.choice([0, 1, max(lengths[k] - 1, 0), min(lengths[k] + 1, 15), 15])

    size = len(lengths) if rng.random() < 0.9 else rng.choice([0, len(lengths) + 1, 65_536, 65_537, 1 << 40])
    lowest = rng.choice([0, 1, 2, 13, 14, 131_071, 131_072, 131_073, 1 << 62])
    nibbles = [*lengths, rng.choice([0, 0, 0, 1])] if len(lengths) % 2 else lengths
    packed = bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True))
    return (
        varint(lowest, padding=rng.choice([0, 0, 0, 1, 9]))
        + varint(size, padding=rng.choice([0, 0, 0, 1]))
        + packed
    )


def _code_lengths(rng, n):
    """Lengths of a complete prefix code of `n` symbols, by splitting leaves."""
    if n < 2:
        return [1] * n
    leaves = [1, 1]
    while len(leaves) < n:
        k = rng.randrange(len(leaves))
        if leaves[k] == 15:
            break
        leaves[k] += 1
        leaves.append(leaves[k])
    rng.shuffle(leaves)
    return leaves


# --- Runs of symbols: the end of a blob


def runs(rng, parts):
    def change(line):
        blob = bytearray(line.blob)
        if not blob:
            return line
        start = rng.randrange(len(blob))
        end = min(start + rng.choice([1, 2, 8, 64, len(blob)]), len(blob))
        match rng.randrange(7):
            case 0:
                blob[start:end] = bytes([rng.choice([0, 255, 0xAA, 0x55])]) * (end - start)
            case 1:  # every codeword after this place begins a bit later
                bits = int.from_bytes(blob[start:], "little") << 1 & (1 << 8 * (len(blob) - start)) - 1
                blob[start:] = bits.to_bytes(len(blob) - start, "little")
            case 2:
                del blob[-rng.choice([1, 1, 2, 3, len(blob)]) :]
            case 3:
                blob += bytes([rng.choice([0, 1, 255])]) * rng.choice([1, 1, 2, 100])
            case 4:
                blob[start:end] = blob[start:end][::-1]
            case 5:
                blob[-1] |= 1 << rng.randrange(8)  # what pads the last byte
            case _:
                middle = len(blob) // 2
                blob = blob[middle:] + blob[:middle]
        return replace(line, blob=bytes(blob))

    return assemble(with_line(rng, parts, change))


# --- Numbers that say where something is, or how much of it


def pointers(rng, parts):
    def change(line):
        blob = line.blob
        start = min(int(rng.expovariate(1 / 12)), len(blob))  # most of them stand in front
        value = rng.choice([*INTERESTING, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
        match rng.randrange(4):
            case 0:
                new, old = varint(value, padding=rng.choice([0, 0, 1])), rng.choice([1, 2, 3])
            case 1:
                old = rng.choice([1, 2, 4, 8])
                new = (value % (1 << 8 * old)).to_bytes(old, "little")
            case 2:
                old = rng.choice([2, 4])
                number = int.from_bytes(blob[start : start + old], "little") + rng.choice([-2, -1, 1, 2])
                new = (number % (1 << 8 * old)).to_bytes(old, "little")
            case _:
                old = 2
                new = blob[start : start + 2][::-1]
        return replace(line, blob=blob[:start] + new + blob[start + old :])

    return assemble(with_line(rng, parts, change))


# --- The graph


def graph(rng, parts):
    if rng.random() < 0.3:
        return assemble(parts, graph=damaged(rng, parts.graph))
    model = onnx.ModelProto.FromString(parts.graph)
    for _ in range(rng.choice([1, 1, 2])):
        rng.choice(_GRAPH_DAMAGE)(rng, model)
    data = model.SerializeToString()
    return assemble(parts, graph=data if rng.random() < 0.8 else damaged(rng, data))


def _calls(name, times):
    return [helper.make_node(name, ["a"], ["o"], domain="l") for _ in range(times)]


def _doubling(rng, model):
    """Functions that call the next one several times, in a circle or not."""
    depth, times = rng.choice([(3, 2), (16, 2), (17, 2), (40, 2), (63, 1), (64, 1), (65, 1), (5, 10)])
    last = rng.choice([f"F{depth}", f"F{depth}", "F0"])
    opset = [helper.make_opsetid("", 17)]
    called = [last if k + 1 == depth else f"F{k + 1}" for k in range(depth)]
    functions = [
        helper.make_function("l", f"F{k}", ["a"], ["o"], _calls(name, times), opset)
        for k, name in enumerate(called)
    ]
    functions.append(helper.make_function("l", f"F{depth}", ["a"], ["o"], [], opset))
    rng.shuffle(functions)
    model.functions.extend(functions)
    model.graph.node.extend(_calls("F0", rng.choice([0, 1, 2])))


def _nested(rng, model):
    """A graph inside a node inside a graph, and so on; parsers of protobuf follow 100 messages deep."""
    inner = onnx.GraphProto(name="g", node=model.graph.node[:1])
    for _ in range(rng.choice([1, 5, 30, 33, 40])):
        outer = onnx.GraphProto(name="g")
        node = outer.node.add(op_type="If")
        node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g.CopyFrom(inner)
        inner = outer
    model.graph.node.add(op_type="If").attribute.add(name="g", type=onnx.AttributeProto.GRAPH).g.CopyFrom(
        inner
    )


def _initializer(rng, model):
    place = rng.choice(
        [model.graph, model.training_info.add().algorithm, model.training_info.add().initialization]
    )
    if rng.random() < 0.5:
        place.initializer.add(name="w", data_type=1, dims=[1], raw_data=bytes(4))
    else:
        place.sparse_initializer.add(dims=[4]).values.name = "w"


def _constant(rng, model):
    """A constant that lies in another file, or says so here or there."""
    tensor = TensorProto(name="c", data_type=1, dims=[rng.choice([1, 1 << 40])])
    if rng.random() < 0.5:
        tensor.data_location = TensorProto.EXTERNAL
    if rng.random() < 0.5:
        tensor.external_data.add(key="location", value=rng.choice(["../../etc/passwd", "weights.bin", ""]))
    attribute = model.graph.node.add(op_type="Constant", output=["c"]).attribute.add(name="value", type=4)
    rng.choice([attribute.t, attribute.tensors.add(), attribute.sparse_tensor.values]).CopyFrom(tensor)


def _texts(rng, model):
    model.metadata_props.add(
        key=rng.choice(["", "k", "modelpress.input"]), value=rng.choice(["", "{", "[" * 5000])
    )
    model.graph.name = "n" * rng.choice([0, 1, 100_000])


def _many_nodes(rng, model):
    number = rng.choice([10, 1000, 1000, 1000, 20_000])
    model.graph.node.extend([onnx.NodeProto(op_type="Relu", input=["x"], output=["y"])] * number)


_GRAPH_DAMAGE = (_doubling, _nested, _initializer, _constant, _texts, _many_nodes)


# --- All of them


def anywhere(rng, parts):
    """As `tests.fuzz` does it: bytes of any part, whatever they mean."""
    return mutant(rng.getrandbits(60), rng.getrandbits(30))


MUTATORS = ((25, runs), (20, pointers), (20, directory), (15, tables), (10, graph), (10, anywhere))


def made(rng):
    """(name of the mutator, file)."""
    (change,) = rng.choices([change for _, change in MUTATORS], [weight for weight, _ in MUTATORS])
    (files,) = rng.choices([files for _, files in bases()], [weight for weight, _ in bases()])
    return change.__name__, change(rng, rng.choice(files))
