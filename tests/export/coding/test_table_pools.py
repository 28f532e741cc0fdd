"""Tensors that code alike share tables."""

import numpy as np

from modelpress.export.coding.code_table import Counts
from modelpress.export.coding.table_pools import Part, Way, pools

NAME = ("levels", 1)


def way(*counts, plain_bits=0, pooled=False, lowest=-1):
    return Way(plain_bits, (Part(NAME, (Counts(lowest, np.array(counts)),)),), (pooled,))


def found(tensors, starts=None):
    """The counts of every pool."""
    groups = pools(tensors, starts or [ways[0] for ways in tensors]).get(NAME, [])
    return sorted(table.counts.tolist() for (table,) in groups)


def test_two_kinds_of_tensors_part_from_one_pool():
    steep, flat = (900, 60, 40, 10), (10, 40, 60, 900)
    starts = [way(*counts, pooled=True) for counts in (steep, flat, steep, flat)]
    assert found([[start] for start in starts], starts) == [[20, 80, 120, 1800], [1800, 120, 80, 20]]


def test_a_tensor_that_gains_nothing_is_in_no_pool():
    assert found([[way(9000, 90, 90)], [way(90, 90, 9000)]]) == []


def test_a_tensor_takes_the_way_that_a_pool_serves():
    """Shifted by one, its levels are like those of the others; alone both ways cost the same."""
    others = [[way(50, 30, 20, 0)], [way(50, 30, 20, 0)]]
    either = [way(50, 30, 20, lowest=0), way(50, 30, 20, lowest=-1)]
    assert found([*others, either]) == [[150, 90, 60, 0]]


def test_a_way_without_tables_is_taken_where_it_is_shorter():
    either = [way(50, 30, 20), Way(8, (), ())]
    assert found([either, either]) == []


def test_pools_of_large_alphabets_and_of_nothing():
    counts = np.arange(1, 201)
    assert found([[way(*counts)], [way(*counts)]]) == [(2 * counts).tolist()]
    assert found([[way()], [way()]]) == [[0]]
    assert pools([], []) == {}
