import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export import huffman
from export.errors import DamagedArtifact
from export.huffman import (
    canonical_codewords,
    check_code_lengths,
    code_lengths,
    decode_symbols,
    encode_symbols,
    pack_code_lengths,
    unpack_code_lengths,
)


def unlimited_cost(counts):
    heap = [int(c) for c in counts if c]
    heapq.heapify(heap)
    cost = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        cost += merged
        heapq.heappush(heap, merged)
    return cost


count_lists = st.lists(st.integers(0, 1000), min_size=2, max_size=60)


@given(count_lists)
def test_code_is_as_short_as_huffmans(counts):
    counts = np.array(counts)
    lengths = code_lengths(counts)
    if np.count_nonzero(counts) > 1:
        assert int((counts * lengths).sum()) == unlimited_cost(counts)
        assert lengths.max() <= huffman.MAX_CODEWORD_BITS
    np.testing.assert_array_equal(lengths > 0, counts > 0)


def test_length_limit_is_kept_and_the_code_stays_complete():
    counts = np.array([1 << k for k in range(20)])
    lengths = code_lengths(counts, max_bits=6)
    assert lengths.max() == 6
    assert sum(2.0 ** -int(n) for n in lengths) == 1.0


def test_known_limited_code():
    # Fibonacci counts want lengths 1..5; the best code of at most 3 bits is (2, 2, 3, 3, 3, 3) up to order
    assert sorted(code_lengths(np.array([1, 1, 2, 3, 5, 8]), max_bits=3).tolist()) == [2, 2, 3, 3, 3, 3]


def test_known_message_in_both_directions():
    lengths = np.array([1, 0, 2, 2], np.uint8)
    assert encode_symbols(np.array([0, 2, 0, 3]), lengths) == bytes.fromhex("32")
    np.testing.assert_array_equal(decode_symbols(bytes.fromhex("32"), lengths, count=4), [0, 2, 0, 3])


@given(st.lists(st.integers(0, 300), max_size=3000))
def test_round_trip_is_exact(symbols):
    symbols = np.array(symbols, np.int64)
    lengths = code_lengths(np.bincount(symbols, minlength=301))
    stream = encode_symbols(symbols, lengths)
    table = unpack_code_lengths(pack_code_lengths(lengths), alphabet=301)
    np.testing.assert_array_equal(decode_symbols(stream, table, count=symbols.size), symbols)


@pytest.mark.parametrize("n_symbols", [2, 17, 4_000])
def test_round_trip_over_many_blocks(n_symbols):
    rng = np.random.default_rng(0)
    symbols = np.minimum(rng.geometric(0.02, 200_000) - 1, n_symbols - 1).astype(np.int64)
    symbols[:n_symbols] = np.arange(n_symbols)
    lengths = code_lengths(np.bincount(symbols, minlength=n_symbols))
    stream = encode_symbols(symbols, lengths)
    np.testing.assert_array_equal(decode_symbols(stream, lengths, count=symbols.size), symbols)


def test_compiled_decoder_agrees_with_numpy():
    pytest.importorskip("numba", reason="needs the extra `fast`")
    rng = np.random.default_rng(1)
    symbols = np.minimum(rng.geometric(0.3, 50_000) - 1, 40).astype(np.int64)
    lengths = code_lengths(np.bincount(symbols))
    stream = np.frombuffer(encode_symbols(symbols, lengths), np.uint8)
    tables = huffman._lookup_tables(lengths)
    compiled = huffman._stream_decoder(compiled=True)
    plain = huffman._stream_decoder(compiled=False)
    assert compiled is not plain
    for decode in (compiled, plain):
        found, n_bits = decode(stream, *tables, symbols.size)
        np.testing.assert_array_equal(found, symbols)
        assert n_bits == int(lengths[symbols].sum())
    for decode in (compiled, plain):
        with pytest.raises(DamagedArtifact, match="ends after"):
            decode(stream[:-9], *tables, symbols.size)


def test_more_symbols_than_codewords_are_refused():
    with pytest.raises(ValueError, match="5 symbols need codewords longer than 2 bits"):
        code_lengths(np.ones(5, np.int64), max_bits=2)


def test_one_symbol_takes_no_bytes():
    lengths = code_lengths(np.array([0, 9]))
    assert encode_symbols(np.full(9, 1), lengths) == b""
    np.testing.assert_array_equal(decode_symbols(b"", lengths, count=9), np.full(9, 1))


@pytest.mark.parametrize(
    ("lengths", "reason"),
    [
        ([1, 1, 1], "over-subscribed"),
        ([1, 2, 0], "under-subscribed"),
        ([0, 3], "must store length 1"),
        ([0, 0], "has no symbol"),
    ],
)
def test_lengths_that_are_no_prefix_code_are_refused(lengths, reason):
    with pytest.raises(DamagedArtifact, match=reason):
        check_code_lengths(np.array(lengths, np.uint8), n_symbols=1)


def test_missing_and_spare_bytes_are_refused():
    lengths = code_lengths(np.array([5, 3, 2, 1]))
    symbols = np.random.default_rng(0).integers(0, 4, 100)
    stream = encode_symbols(symbols, lengths)
    for damaged in (stream[:-1], stream + b"\0", b""):
        with pytest.raises(DamagedArtifact):
            decode_symbols(damaged, lengths, count=100)


def test_canonical_codewords_are_ordered_by_length_then_symbol():
    # RFC 1951, section 3.2.2: lengths (3,3,3,3,3,2,4,4) give 010..110, 00, 1110, 1111
    words = canonical_codewords(np.array([3, 3, 3, 3, 3, 2, 4, 4], np.uint8))
    lengths = [3, 3, 3, 3, 3, 2, 4, 4]
    text = [f"{int(w):0{n}b}"[::-1] for w, n in zip(words, lengths, strict=True)]
    assert text == ["010", "011", "100", "101", "110", "00", "1110", "1111"]
