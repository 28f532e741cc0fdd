from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelpress.export.coding.csr import (
    Csr,
    check_csr,
    csr_from_dense,
    csr_from_positions,
    csr_positions,
    csr_to_dense,
)
from modelpress.export.coding.relative_index import gaps_from_positions, positions_from_gaps
from modelpress.export.errors import DamagedArtifact

matrices = hnp.arrays(
    np.int8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=12), elements=st.integers(-1, 1)
)
DENSE = np.array([[0, 5, 0], [7, 0, 8]], np.int8)
PACKED = csr_from_dense(DENSE, DENSE != 0)


def test_known_matrix_packs_to_known_arrays():
    assert PACKED.data.tolist() == [5, 7, 8]
    assert PACKED.indices.tolist() == [1, 0, 2]
    assert PACKED.indptr.tolist() == [0, 1, 3]


@given(matrices)
def test_arrays_are_scipys(codes):
    ours, theirs = csr_from_dense(codes, codes != 0), scipy.sparse.csr_array(codes)
    np.testing.assert_array_equal(ours.data, theirs.data)
    np.testing.assert_array_equal(ours.indices, theirs.indices)
    np.testing.assert_array_equal(ours.indptr, theirs.indptr)


@given(matrices, st.integers(0, 2**31))
def test_round_trip_is_exact(codes, seed):
    support = (codes != 0) | (np.random.default_rng(seed).random(codes.shape) < 0.3)  # stored zeros too
    csr = csr_from_dense(codes, support)
    restored, where = csr_to_dense(csr_from_positions(csr.data, csr_positions(csr), csr.shape))
    np.testing.assert_array_equal(restored, codes)
    np.testing.assert_array_equal(where, support)


@pytest.mark.parametrize("column", [-1, 3])
def test_column_outside_the_row_is_refused(column):
    with pytest.raises(DamagedArtifact, match=f"column index {column} at entry 1 is outside 0..2"):
        check_csr(replace(PACKED, indices=np.array([1, column, 2])))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"indptr": np.array([0, 4, 3])}, "row pointer 2 decreases"),
        ({"indptr": np.array([0, 1, 2])}, "do not run from 0 to 3"),
        ({"indptr": np.array([0, 3])}, "do not run"),
        ({"indices": np.array([1, 2, 2])}, "do not increase at entry 2"),
        ({"indices": np.array([1, 2])}, "2 column indices for 3 entries"),
    ],
)
def test_contradictions_are_refused(damage, reason):
    with pytest.raises(DamagedArtifact, match=reason):
        csr_to_dense(replace(PACKED, **damage))


def test_positions_outside_or_out_of_order_are_refused():
    with pytest.raises(DamagedArtifact, match="outside"):
        csr_from_positions(np.array([1]), np.array([6]), (2, 3))
    with pytest.raises(DamagedArtifact, match="do not increase"):
        csr_from_positions(np.array([1, 1]), np.array([2, 2]), (2, 3))


@given(st.sets(st.integers(0, 5000), max_size=200), st.integers(1, 8))
def test_gaps_round_trip(positions, gap_bits):
    positions = np.array(sorted(positions), np.int64)
    gaps = gaps_from_positions(positions, gap_bits=gap_bits)
    assert gaps.size == 0 or 0 <= gaps.min() <= gaps.max() < 1 << gap_bits
    np.testing.assert_array_equal(positions_from_gaps(gaps, gap_bits=gap_bits), positions)


def test_empty_matrix():
    csr = Csr(np.zeros(0, np.int8), np.zeros(0, np.int64), np.zeros(4, np.int64), (3, 0))
    codes, support = csr_to_dense(csr)
    assert codes.shape == support.shape == (3, 0)
