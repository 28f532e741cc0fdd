import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from export.encodings import ENCODINGS, decode_blob, encode_every_way, encode_smallest
from export.encodings.spec import TensorSpec
from export.errors import DamagedArtifact, ModelError, UnsupportedVersion
from export.quantized import QuantizedTensor, code_range, tensors_equal

FLOAT = 1


@st.composite
def quantized_tensors(draw):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6))
    bits, symmetric, per_channel = draw(st.integers(2, 8)), draw(st.booleans()), draw(st.booleans())
    low, high = code_range(bits=bits, signed=symmetric)
    codes = draw(hnp.arrays(np.int64, shape, elements=st.integers(low, high), fill=st.just(0)))
    positive = st.floats(2.0**-20, 1000, width=32)
    parameter = (shape[0],) if per_channel else ()
    scale = draw(hnp.arrays(np.float32, parameter, elements=positive))
    offset = support = None
    if not symmetric:
        offset = draw(hnp.arrays(np.float32, parameter, elements=st.floats(-100, 100, width=32)))
        if draw(st.booleans()):
            support = draw(hnp.arrays(np.bool_, shape))
            codes = np.where(support, codes, 0)
    channels = None
    if draw(st.booleans()):
        channels = draw(hnp.arrays(np.float32, (shape[0],), elements=st.floats(-10, 10, width=32)))
    return QuantizedTensor(
        codes.astype(np.int8 if symmetric else np.uint8),
        bits=bits,
        scale=scale,
        offset=offset,
        support=support,
        channel_scale=channels,
    )


@given(quantized_tensors())
def test_every_encoding_gives_the_tensor_back(tensor):
    spec = TensorSpec(tensor.shape, FLOAT)
    ways = encode_every_way(tensor)
    assert {"packed", "huffman"} <= set(ways)
    for name, writer in ways.items():
        number = next(e.id for e in ENCODINGS if e.name == name)
        restored, parts = decode_blob(number, writer.data(), spec)
        assert tensors_equal(restored, tensor), name
        assert parts == writer.sizes, name


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float16, np.float64, np.int64, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0),
    ).filter(lambda array: bool(np.isfinite(array).all()))
)
def test_other_arrays_are_kept_as_they_are(array):
    from onnx.helper import np_dtype_to_tensor_dtype

    spec = TensorSpec(array.shape, np_dtype_to_tensor_dtype(array.dtype))
    ways = encode_every_way(array)
    assert set(ways) == ({"raw"} if array.dtype == bool else {"raw", "byte planes"})
    for encoding in ENCODINGS:
        if encoding.name in ways:
            restored, _ = decode_blob(encoding.id, ways[encoding.name].data(), spec)
            assert tensors_equal(restored, array)


@pytest.mark.parametrize(
    ("n", "change"), [(3, slice(0, -1)), (3, slice(1, None)), (2, slice(None)), (4, slice(None))]
)
def test_byte_planes_of_another_size_are_refused(n, change):
    blob = encode_every_way(np.zeros(3, np.float32))["byte planes"].data()
    with pytest.raises(DamagedArtifact, match="byte planes"):
        decode_blob(4, blob[change], TensorSpec((n,), FLOAT))


def test_floats_of_like_size_take_fewer_bytes_than_raw():
    weights = (1 + np.random.default_rng(0).random(2000) / 4).astype(np.float32)
    encoding, writer = encode_smallest(weights)
    assert encoding.name == "byte planes"
    assert len(writer.data()) < 0.85 * weights.nbytes


def sparse_tensor(density, n=4000):
    rng = np.random.default_rng(3)
    codes = np.where(rng.random((10, n // 10)) < density, rng.integers(-7, 8, (10, n // 10)), 0)
    return QuantizedTensor(codes.astype(np.int8), bits=4, scale=np.float32(0.1))


@pytest.mark.parametrize(("density", "expected"), [(1.0, "huffman"), (0.1, "csr+huffman")])
def test_the_smallest_encoding_is_taken(density, expected):
    tensor = sparse_tensor(density)
    encoding, writer = encode_smallest(tensor)
    assert encoding.name == expected
    assert len(writer.data()) == min(len(w.data()) for w in encode_every_way(tensor).values())


def test_sparse_weights_come_close_to_their_entropy():
    tensor = sparse_tensor(0.2, n=40_000)
    positions = np.flatnonzero(tensor.codes)
    values = tensor.codes.ravel()[positions]

    def entropy(symbols):
        counts = np.unique(symbols, return_counts=True)[1]
        return -(counts * np.log2(counts / counts.sum())).sum() / 8

    bound = entropy(np.diff(positions, prepend=-1)) + entropy(values)
    assert encode_every_way(tensor)["csr+huffman"].sizes["payload"] <= 1.02 * bound


@given(st.data())
def test_damaged_blobs_are_refused_or_decode_to_something_valid(data):
    tensor = data.draw(quantized_tensors())
    spec = TensorSpec(tensor.shape, FLOAT)
    for encoding in ENCODINGS[1:]:
        writer = encoding.encode(tensor)
        if writer is None:
            continue
        blob = bytearray(writer.data())
        for _ in range(data.draw(st.integers(1, 4))):
            blob[data.draw(st.integers(0, len(blob) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        try:
            restored, _ = decode_blob(encoding.id, bytes(blob), spec)
        except DamagedArtifact:
            continue
        assert isinstance(restored, QuantizedTensor)
        assert restored.shape == tensor.shape


def test_unknown_encoding_needs_a_newer_reader():
    with pytest.raises(UnsupportedVersion, match="encoding 200"):
        decode_blob(200, b"", TensorSpec((1,), FLOAT))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scale": np.float32(0)}, "scale is not positive"),
        ({"scale": np.float32(np.nan)}, "scale is not finite"),
        ({"scale": np.ones((1, 2), np.float32)}, r"scale has shape \(1, 2\); expected \(\) or \(2,\)"),
        ({"scale": 0.5}, "scale has type float64"),
        ({"offset": np.float32(1)}, "codes have type int8; expected uint8"),
        ({"bits": 9}, "9 bits; expected 2 to 8"),
        ({"bits": 2}, "2 bits allow -1 to 1"),
        ({"codes": np.zeros((), np.int8)}, "0-d"),
        ({"support": np.ones((2, 2), np.bool_)}, "need no support"),
        ({"channel_scale": np.ones(3, np.float32)}, r"channel_scale has shape \(3,\)"),
    ],
)
def test_tensors_that_make_no_sense_cannot_be_built(change, reason):
    good = {"codes": np.array([[1, 2], [0, -3]], np.int8), "bits": 3, "scale": np.float32(1)}
    with pytest.raises(ModelError, match=reason):
        QuantizedTensor(**{**good, **change})


def test_codes_outside_the_support_are_refused():
    with pytest.raises(ModelError, match="outside the support must be 0"):
        QuantizedTensor(
            np.array([[1]], np.uint8),
            bits=2,
            scale=np.float32(1),
            offset=np.float32(0),
            support=np.array([[False]]),
        )


def test_worked_example_of_the_specification():
    tensor = QuantizedTensor(np.array([[0, 3, 0, 0], [0, 0, -1, 0]], np.int8), bits=3, scale=np.float32(0.5))
    expected = "03 00 00 00 00 3f 02 00 00 00 07 00 00 00 01 00 00 00 01 11 00 01 00 01 3d 01"
    assert encode_every_way(tensor)["csr+huffman"].data().hex(" ") == expected
