"""Damaged files with right checksums: the product refuses what the reference refuses, and reads the rest alike."""

import pytest

from modelpress.export.coding.core import core
from tests.fuzz import compiled, judge, mutants, not_compiled

MUTANTS_EACH = 2500


@pytest.mark.parametrize("way", [not_compiled, compiled])
@pytest.mark.parametrize("chunk", range(4))
def test_mutants_are_read_as_the_reference_reads_them(way, chunk):
    if way is compiled and core() is None:
        pytest.skip("nothing is compiled")
    start = (chunk + 4 * (way is compiled)) * MUTANTS_EACH
    wrong = {}
    with way():
        for k, data in enumerate(mutants("test", MUTANTS_EACH, start), start):
            found = judge(data, k)
            if found:
                wrong[k] = found
    # python -m tests.fuzz --seed test --start K --mutants 1 --keep FOLDER writes mutant K
    assert not wrong
