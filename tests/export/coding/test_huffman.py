import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpress.export.coding import huffman
from modelpress.export.coding.huffman import (
    canonical_codewords,
    check_code_lengths,
    code_lengths,
    pack_code_lengths,
    unpack_code_lengths,
)
from modelpress.export.errors import DamagedArtifact


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


@given(st.lists(st.integers(1, 30), min_size=2, max_size=60), st.integers(6, 15))
def test_lists_and_arrays_take_the_same_coins(weights, max_bits):
    coins = np.sort(np.array(weights, np.int64))
    assert huffman._coins_of_few(coins, max_bits) == huffman._coins_of_many(coins, max_bits)


def test_length_limit_is_kept_and_the_code_stays_complete():
    counts = np.array([1 << k for k in range(20)])
    lengths = code_lengths(counts, max_bits=6)
    assert lengths.max() == 6
    assert sum(2.0 ** -int(n) for n in lengths) == 1.0


def test_known_limited_code():
    # Fibonacci counts want lengths 1..5; the best code of at most 3 bits is (2, 2, 3, 3, 3, 3) up to order
    assert sorted(code_lengths(np.array([1, 1, 2, 3, 5, 8]), max_bits=3).tolist()) == [2, 2, 3, 3, 3, 3]


def test_more_symbols_than_codewords_are_refused():
    with pytest.raises(ValueError, match="5 symbols need codewords longer than 2 bits"):
        code_lengths(np.ones(5, np.int64), max_bits=2)


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


@given(st.lists(st.integers(0, 1000), max_size=300))
def test_lengths_survive_packing(counts):
    lengths = code_lengths(np.array(counts, np.int64))
    np.testing.assert_array_equal(
        unpack_code_lengths(pack_code_lengths(lengths), alphabet=lengths.size), lengths
    )


@pytest.mark.parametrize("max_bits", [16, 20])
def test_alphabets_of_16_bits_have_codes(max_bits):
    counts = np.random.default_rng(0).integers(0, 1000, 1 << 16)
    lengths = code_lengths(counts, max_bits=max_bits)
    assert lengths.max() <= max_bits
    assert int((1 << (max_bits - lengths[lengths > 0].astype(np.int64))).sum()) == 1 << max_bits
    used = counts[counts > 0]
    entropy = (used * np.log2(used.sum() / used)).sum()
    assert entropy <= (counts * lengths).sum() <= entropy * (1.05 if max_bits == 16 else 1.01)


def test_canonical_codewords_are_ordered_by_length_then_symbol():
    # RFC 1951, section 3.2.2: lengths (3,3,3,3,3,2,4,4) give 010..110, 00, 1110, 1111
    words = canonical_codewords(np.array([3, 3, 3, 3, 3, 2, 4, 4], np.uint8))
    lengths = [3, 3, 3, 3, 3, 2, 4, 4]
    text = [f"{int(w):0{n}b}"[::-1] for w, n in zip(words, lengths, strict=True)]
    assert text == ["010", "011", "100", "101", "110", "00", "1110", "1111"]
