"""A reader takes at most twice what a tensor is declared to take, and 16 MB, in every encoding, compiled or not."""

import tracemalloc
from contextlib import nullcontext
from functools import cache

import numpy as np
import pytest

from modelpress.export.coding.core import core, numpy_alone
from modelpress.export.errors import DamagedArtifact
from modelpress.export.press.encodings import HUFFMAN_IDS, MIXED, decode_blob, huffman_blob
from modelpress.export.press.encodings.coded_planes import encode as encode_planes
from modelpress.export.press.encodings.coded_planes import survey as survey_planes
from modelpress.export.press.encodings.file_state import FileState
from modelpress.export.press.encodings.grid import grid_of, write_grid
from modelpress.export.press.encodings.huffman_blob import NO_SHARED, PartWriter
from modelpress.export.press.encodings.levels import source_of
from modelpress.export.press.encodings.packed import encode as encode_packed
from modelpress.export.quantized import QuantizedTensor
from modelpress.export.tensor_spec import TensorSpec

FLOAT, SHAPE = 1, (1 << 14, 1 << 10)  # 2**24 elements
WAYS = [
    pytest.param(numpy_alone, id="numpy"),
    pytest.param(nullcontext, id="compiled", marks=pytest.mark.skipif(core() is None, reason="not compiled")),
]


@cache
def weight():
    rng = np.random.default_rng(0)
    support = rng.random(SHAPE, np.float32) > 0.95
    codes = rng.integers(0, 16, SHAPE, np.uint8) * support
    return QuantizedTensor(codes, bits=4, scale=np.float32(0.02), offset=np.float32(-0.15), support=support)


def huffman(kind):
    plans = huffman_blob.survey(weight(), kind.candidates(weight().spec, source_of(weight()).bounds))
    return huffman_blob.write(weight(), min(plans, key=lambda plan: plan.n_bytes(NO_SHARED)), NO_SHARED)


def coded_planes():
    values = np.zeros(SHAPE, np.float32)
    values[::7] = 1.5
    return encode_planes(values, survey_planes(values))


BLOBS = {
    "raw": (0, lambda: PartWriter().add("payload", bytes(4 << 24))),
    "packed": (5, lambda: encode_packed(weight())),
    "float16": (11, lambda: PartWriter().add("payload", bytes(2 << 24))),
    "bfloat16": (12, lambda: PartWriter().add("payload", bytes(2 << 24))),
    "coded planes": (13, coded_planes),
    **{kind.__name__: (number, lambda kind=kind: huffman(kind)) for kind, number in HUFFMAN_IDS.items()},
}


def peak_of(way, number, blob, spec):
    with way():
        state = FileState()
        tracemalloc.start()
        try:
            decode_blob(number, blob, spec, state)
        except DamagedArtifact:
            assert number == MIXED
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    return peak


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", BLOBS)
def test_large_tensors_take_twice_their_size_and_16_mb(way, name):
    number, encode = BLOBS[name]
    spec = TensorSpec(SHAPE, FLOAT)
    assert peak_of(way, number, encode().data(), spec) <= 2 * spec.n_bytes + (16 << 20)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(1 << 20,), (16, 1 << 16), (1 << 10, 1 << 10), (1, 1 << 16, 4, 4)])
def test_mixed_contexts_take_twice_their_size_and_16_mb(way, shape):
    """All memory is taken before the first level, so a stream that is refused after a few shows it too."""
    spec = TensorSpec(shape, FLOAT)
    writer = PartWriter()
    write_grid(writer, grid_of(QuantizedTensor(np.zeros((1, 1), np.int8), bits=4, scale=np.float32(1))))
    assert peak_of(way, MIXED, writer.data(), spec) <= 2 * spec.n_bytes + (16 << 20)
