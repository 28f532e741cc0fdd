"""Compiled and with NumPy alone: the same bytes, the same tensors, the same refusals."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpress.export.coding.core import NUMPY_ALONE, core, numpy_alone, way_in_use
from modelpress.export.coding.csr import csr_from_dense, csr_to_dense
from modelpress.export.errors import DamagedArtifact
from modelpress.export.lazy_tensors import spec_of
from modelpress.export.press.encodings import coded_planes, decode_blob
from modelpress.export.press.encodings.compiled import COMPRESSED, decode_dense
from modelpress.export.press.encodings.file_state import FileState
from modelpress.export.press.encodings.split import blob as split
from modelpress.export.quantized import QuantizedTensor, dense_array, tensors_equal
from modelpress.export.tensor_spec import TensorSpec
from tests.helpers.samples import encoded, samples
from tests.helpers.ways import every_way

functions = core()
compiled_alone = pytest.mark.skipif(functions is None, reason="nothing is compiled")


@st.composite
def quantized(draw):
    """Tensors of every kind of grid, of a few hundred elements."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)))
    axis = draw(st.integers(0, len(shape) - 1))
    bits, asymmetric = draw(st.integers(2, 8)), draw(st.booleans())
    scales = draw(st.sampled_from([(), (shape[axis],)]))
    high = 2**bits - 1 if asymmetric else 2 ** (bits - 1) - 1
    codes = rng.integers(0 if asymmetric else -high, high, shape, endpoint=True)
    support = rng.random(shape) < 0.4 if asymmetric and draw(st.booleans()) else None
    codes = codes * (support if support is not None else rng.random(shape) < 0.6)
    return QuantizedTensor(
        codes.astype(np.uint8 if asymmetric else np.int8),
        bits=bits,
        scale=rng.uniform(1e-3, 1, scales).astype(np.float32)[()],
        offset=rng.normal(0, 5, scales).astype(np.float32)[()] if asymmetric else None,
        support=support,
        channel_scale=rng.normal(0, 1, shape[axis]).astype(np.float32) if draw(st.booleans()) else None,
        channel_axis=axis,
        dtype=draw(st.sampled_from([np.float32, np.float16])),
    )


@compiled_alone
@given(tensor=quantized())
@settings(max_examples=40, deadline=None)
def test_both_ways_write_the_same_bytes_and_read_the_same_tensor(tensor):
    with numpy_alone():
        plain_ways, plain_values = every_way(tensor), tensor.dequantize()

    assert tensor.dequantize().tobytes() == plain_values.tobytes()
    for name, (number, writer) in every_way(tensor).items():
        blob = writer.data()
        assert plain_ways[name][1].data() == blob, name

        restored, parts = decode_blob(number, blob, tensor.spec, FileState())
        with numpy_alone():
            plain, plain_parts = decode_blob(number, blob, tensor.spec, FileState())
        assert restored.equals(tensor)
        assert plain.equals(tensor)
        assert parts == plain_parts
        values = decode_dense(functions, number, blob, tensor.spec, FileState())
        assert values.tobytes() == plain_values.tobytes(), name


@compiled_alone
@pytest.mark.parametrize(
    "dtype", [np.float32, np.float16, np.float64, onnx.helper.tensor_dtype_to_np_dtype(16)]
)
@pytest.mark.parametrize("digits", [30, 3])
def test_both_ways_split_the_same_floats(dtype, digits):
    """More than one slab of mantissas, with zeros of both signs, mantissas of all bits or of few."""
    rng = np.random.default_rng(0)
    rounded = np.round(rng.standard_normal(70_001) * 2**digits) / 2**digits
    array = np.where(rng.random(70_001) < 0.7, rounded, 0).astype(dtype)
    array[0] = 0.0 if dtype is np.float64 else -0.0  # too far from the other exponents of a double
    (source,) = split.sources_of(array)
    blob, planes = split.encode_packed(source).data(), coded_planes.survey(array)
    with numpy_alone():
        (plain,) = split.sources_of(array)
        assert split.encode_packed(plain).data() == blob
        assert coded_planes.survey(array).n_bytes == planes.n_bytes

    restored, _ = decode_blob(14, blob, spec_of({"": array}, ""), FileState())
    assert tensors_equal(restored, array)


@compiled_alone
@pytest.mark.parametrize("name", list(samples()))
def test_values_in_one_pass_are_those_of_the_codes(name):
    for line in encoded(name):
        if line.encoding not in COMPRESSED:
            spec = TensorSpec(line.shape, line.element_type)
            tensor, _ = decode_blob(line.encoding, line.blob, spec, FileState())
            values = decode_dense(functions, line.encoding, line.blob, spec, FileState())
            assert values.tobytes() == dense_array(tensor).tobytes()


def refused_or(read):
    """What `read` gives; None where it refuses."""
    try:
        return read()
    except DamagedArtifact:
        return None


@compiled_alone
@given(tensor=quantized(), data=st.data())
@settings(max_examples=40, deadline=None)
def test_both_ways_refuse_the_same(tensor, data):
    """Mutants of whole files, which the reference judges, are in tests/export/press/test_mutants.py."""
    number, writer = data.draw(st.sampled_from(list(every_way(tensor).values())))
    blob = bytearray(writer.data())
    where = data.draw(st.integers(0, len(blob) - 1))
    if data.draw(st.booleans()):
        del blob[where:]
    else:
        blob[where] ^= 1 << data.draw(st.integers(0, 7))

    compiled = refused_or(lambda: decode_dense(functions, number, bytes(blob), tensor.spec, FileState()))
    with numpy_alone():
        restored = refused_or(lambda: decode_blob(number, bytes(blob), tensor.spec, FileState()))
        plain = None if restored is None else restored[0].dequantize()
    assert (compiled is None) == (plain is None)
    assert compiled is None or compiled.tobytes() == plain.tobytes()


@compiled_alone
@given(st.integers(0, 2**32), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_rows_become_dense_both_ways(seed, density):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(0, 9, 2))
    support = rng.random(shape) < density
    csr = csr_from_dense(rng.integers(-128, 128, shape).astype(np.int8) * support, support)
    codes, kept = np.full(shape, 7, np.int8), np.full(shape, 1, np.bool_)
    functions.csr_to_dense(
        csr.data, np.ascontiguousarray(csr.indices), csr.indptr, *map(int, shape), codes, kept
    )
    for ours, theirs in zip((codes, kept), csr_to_dense(csr), strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)


@compiled_alone
@pytest.mark.parametrize(
    ("indices", "indptr"),
    [([1, 1], [0, 2, 2]), ([0, 3], [0, 2, 2]), ([0, -1], [0, 1, 2]), ([0, 1], [0, 3, 2])],
)
def test_rows_that_contradict_each_other_are_refused(indices, indptr):
    with pytest.raises(functions.Damaged, match="contradict"):
        functions.csr_to_dense(
            np.ones(2, np.int8),
            np.array(indices),
            np.array(indptr),
            2,
            3,
            np.zeros(6, np.int8),
            np.zeros(6, np.bool_),
        )


@compiled_alone
def test_buffers_that_do_not_fit_are_refused():
    blob = bytes(8)
    with pytest.raises(ValueError, match="too small"):
        functions.decode_values(0, 1, (2,), blob, None, None, bytearray(7))
    with pytest.raises(ValueError, match="too small"):
        functions.mixed_encode(bytearray(8), np.zeros(1, np.int16), 1, 1, 1, 1, -1, 1, False)
    with pytest.raises(ValueError, match="too small"):
        functions.count_levels(np.full(3, 257, np.int16), np.zeros(513, np.int64))
    signs, groups = np.zeros((15, 27), np.int64), np.zeros((7, 25), np.int64)
    with pytest.raises(ValueError, match="too small"):
        functions.count_sign_rows(np.full(3, 6, np.int16), bytes([3, 3, 5, 2, 2]), signs, groups)
    with pytest.raises(ValueError, match="too small"):
        functions.float_levels(np.zeros(3, np.float32), 1, 0, np.zeros(2, np.int16))
    with pytest.raises(functions.Damaged, match="bytes end"):
        functions.decode_values(0, 1, (2,), blob[:7], None, None, bytearray(8))


def test_the_environment_asks_for_numpy_alone():
    code = "from modelpress.export.coding.core import core, way_in_use; print(core() is None, way_in_use())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, NUMPY_ALONE: "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"True codes in NumPy, many times slower: {NUMPY_ALONE} is set")
    assert way_in_use().startswith("codes")


def test_a_tensor_restored_is_writable():
    tensor = QuantizedTensor(np.array([[1, 0]], np.int8), bits=3, scale=np.float32(1))
    number, writer = every_way(tensor)["packed"]
    restored, _ = decode_blob(number, writer.data(), tensor.spec, FileState())
    restored.codes[0, 1] = 1
    assert not tensors_equal(restored, tensor)
