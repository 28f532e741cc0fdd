import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpress.export.coding.bits import (
    check_stream_end,
    pack_codewords,
    pack_fixed_width,
    unpack_fixed_width,
)
from modelpress.export.errors import DamagedArtifact


def obvious_bits(codewords, lengths):
    bits = [(int(c) >> k) & 1 for c, n in zip(codewords, lengths, strict=True) for k in range(n)]
    bits += [0] * (-len(bits) % 8)
    return bytes(sum(bit << k for k, bit in enumerate(bits[i : i + 8])) for i in range(0, len(bits), 8))


@given(
    st.lists(
        st.integers(0, 32).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, 2**n - 1))), max_size=200
    )
)
def test_codewords_follow_each_other_low_bit_first(pairs):
    lengths = np.array([n for n, _ in pairs], np.int64)
    codewords = np.array([c for _, c in pairs], np.uint64)
    assert pack_codewords(codewords, lengths) == obvious_bits(codewords, lengths)


@given(st.integers(1, 16), st.data())
def test_fixed_width_round_trip(bits, data):
    values = np.array(data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=100)), np.int64)
    stream = pack_fixed_width(values, bits=bits)
    assert len(stream) == (values.size * bits + 7) // 8
    np.testing.assert_array_equal(unpack_fixed_width(stream, bits=bits, count=values.size), values)


def test_wrong_length_is_refused():
    with pytest.raises(DamagedArtifact, match="bit stream is 3 bytes, its symbols take 2"):
        check_stream_end(b"\0\0\0", n_bits=9)


def test_padding_must_be_zero():
    with pytest.raises(DamagedArtifact, match="padding"):
        unpack_fixed_width(b"\x13", bits=4, count=1)


def test_codewords_longer_than_a_word_are_refused():
    with pytest.raises(ValueError, match="at most 32 bits"):
        pack_codewords(np.array([0]), np.array([33]))
