"""Small tensors of every kind that a `.press` file can hold, and small files in every encoding."""

from functools import cache

import numpy as np
import onnx

from modelpress.export.coding.code_table import CodeTable
from modelpress.export.press.encodings import HUFFMAN_IDS, huffman_blob
from modelpress.export.press.encodings.huffman_blob import SharedGroup
from modelpress.export.quantized import QuantizedTensor
from modelpress.export.tensor_spec import CARRIERS, DTYPES, FEW_BITS, of_carrier
from tests.helpers.ways import every_way
from tests.reference.press_writer import Line, Parts
from tests.reference.version_1_0_writer import every_way_of_1_0

BFLOAT16 = onnx.TensorProto.BFLOAT16


def quantized(shape, *, bits=4, axis=0, flags="", density=0.5, dtype=np.float32, seed=0):
    """A random tensor; ``flags``: o offset, s support, p per channel, c channel scale, h all in binary16."""
    rng = np.random.default_rng(seed)
    kept = rng.random(shape) < density
    n = shape[axis]
    parameter = (n,) if "p" in flags else ()
    step = 2.0**-8 if "h" in flags else 0.0137
    scale = np.asarray(step * rng.integers(1, 9, parameter), np.float32)
    offset = support = None
    top = 2 ** (bits - 1) - 1
    codes = rng.integers(-top, top + 1, shape)
    if "o" in flags:
        codes = rng.integers(0, 2**bits, shape)
        offset = np.asarray(-scale * rng.integers(0, 2**bits, parameter), np.float32)
        support = kept if "s" in flags else None
    if "s" in flags or "o" not in flags:
        codes = codes * kept
    channel_scale = np.asarray(0.25 * rng.integers(-4, 5, n), np.float32) if "c" in flags else None
    if channel_scale is not None and "h" not in flags:
        channel_scale = channel_scale * np.float32(1.001)
    return QuantizedTensor(
        codes.astype(np.int8 if offset is None else np.uint8),
        bits=bits,
        scale=scale,
        offset=offset,
        support=support,
        channel_scale=channel_scale,
        channel_axis=axis,
        dtype=dtype,
    )


@cache
def quantized_samples():
    """By a name that tells them apart."""
    kinds = ["", "p", "c", "pc", "o", "op", "oc", "opc", "os", "ops", "osc", "opsc"]
    samples = {}
    for k, flags in enumerate(kinds):
        for half in ("", "h"):
            samples[f"{flags}{half} 2x2x3x3"] = quantized((2, 2, 3, 3), flags=flags + half, seed=k)
            samples[f"{flags}{half} 5x7"] = quantized(
                (5, 7),
                bits=2 + k % 7,
                axis=1,
                flags=flags + half,
                dtype=[np.float16, np.float32][k % 2],
                seed=k,
            )
    rows = quantized((3, 4, 5), bits=8, axis=2, flags="osp", density=0.2)
    return samples | {
        "vector": quantized((17,), bits=3, density=0.3),
        "one": quantized((1,), bits=8, density=1),
        "rows of five": rows,
        "five dimensions": quantized((2, 3, 1, 2, 2), bits=5, axis=4, flags="pc"),
        "5x5 kernels": quantized((1, 2, 5, 5), bits=6, flags="o"),
        "all zero": quantized((4, 5), density=0),
        "nothing kept": quantized((4, 5), flags="os", density=0),
        "all kept": quantized((4, 5), flags="os", density=2),
        "far gaps": quantized((10, 60), density=0.01, bits=2),
        "no rows": quantized((0, 3)),
        "no rows, per channel": quantized((0, 3), flags="opsc"),
        "no columns": quantized((3, 0), flags="opsc"),
    }


@cache
def array_samples():
    """By element type, and some special ones."""
    rng = np.random.default_rng(5)
    samples = {
        np.dtype(letter).name: rng.integers(0, 100, (3, 5)).astype(letter)
        for letter in ("u1", "i1", "u2", "i2", "i4", "i8", "f2", "f4", "f8", "u4", "u8")
    }
    return samples | {
        "bool": rng.random((4, 5)) < 0.5,
        "odd floats": rng.standard_normal(9).astype(np.float32),
        "wide doubles": rng.standard_normal((2, 3)) * 1e300,
        "bfloats": np.float32([1e30, -2.0, 0.0, -0.0]),
        "halves": np.float32([6e-8, 65504.0, -0.0]),
        "not finite": np.array([0x7FC01234, 0xFF800000, 0x7F800001, 0, 1 << 31, 3], np.uint32).view(
            np.float32
        ),
        "pruned": rng.standard_normal((3, 2, 3, 3)).astype(np.float32) * (rng.random((3, 2, 3, 3)) < 0.4),
        "many doubles": rng.standard_normal(700) * (rng.random(700) < 0.9),
        "many halves": np.arange(-300, 300).astype(np.float16) / np.float16(7),
        **{
            f"type {kind}": random_bits(rng, (3, 5), kind)
            for kind in CARRIERS
            if kind > onnx.TensorProto.UINT64
        },
        "bfloat16 weights": (rng.standard_normal(900) * (rng.random(900) < 0.6)).astype(DTYPES[BFLOAT16]),
        "indices": np.repeat(np.arange(0, 3000, 100), 4),
        "scalar": np.array(3.5, np.float32),
        "empty": np.zeros((0, 2), np.int64),
    }


def random_bits(rng, shape, kind):
    """Elements of a type that NumPy has not, whatever their bits say."""
    dtype, bits = CARRIERS[kind], FEW_BITS.get(kind, 8 * CARRIERS[kind].itemsize)
    low = -(1 << bits - 1) if dtype.kind == "i" else 0
    return of_carrier(rng.integers(low, low + (1 << bits), shape).astype(dtype), kind)


def samples():
    """All, by name."""
    return quantized_samples() | array_samples()


@cache
def encoded(name):
    """A sample in every encoding that holds it."""
    return in_every_encoding(samples()[name])


def in_every_encoding(tensor):
    """A tensor in every encoding that holds it, those of version 1.0 among them."""
    is_quantized = isinstance(tensor, QuantizedTensor)
    kind = tensor.spec.onnx_type if is_quantized else onnx_type(tensor)
    blobs = [(number, writer.data()) for number, writer in every_way(tensor).values()]
    if is_quantized and kind == 1 and tensor.channel_axis == 0:
        blobs += every_way_of_1_0(tensor).items()
    return [Line("w", kind, tuple(tensor.shape), number, blob) for number, blob in blobs]


def onnx_type(array):
    return int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))


@cache
def shared_samples():
    """Files of three tensors whose code tables are shared, one for each Huffman encoding and variant."""
    tensors = [quantized((4, 4, 3, 3), flags="os", density=0.4, seed=seed) for seed in (1, 2, 3)]
    files = {}
    for kind, number in HUFFMAN_IDS.items():
        for coder in kind.candidates(tensors[0].spec, (-16, 16)):
            plans = [huffman_blob.survey(tensor, [coder])[0] for tensor in tensors]
            groups = pooled(plans)
            blobs = [
                huffman_blob.write(t, plan, groups).data() for t, plan in zip(tensors, plans, strict=True)
            ]
            lines = tuple(Line(f"w{k}", 1, (4, 4, 3, 3), number, blob) for k, blob in enumerate(blobs))
            files[f"{kind.__name__} {coder.parameters().hex()}"] = Parts(lines, tables=packed_groups(groups))
    return files


def pooled(plans):
    """For every group of tables one that fits all plans."""
    groups = {}
    for k, name in enumerate(plans[0].coder.groups):
        counts = zip(*(plan.groups[k] for plan in plans), strict=True)
        tables = tuple(CodeTable.for_counts(a + b + c) for a, b, c in counts)
        groups[name] = [SharedGroup(k + 1, tables)]
    return groups


def packed_groups(groups):
    return bytes([len(groups)]) + b"".join(
        bytes([len(group.tables)]) + b"".join(table.pack() for table in group.tables)
        for (group,) in groups.values()
    )
