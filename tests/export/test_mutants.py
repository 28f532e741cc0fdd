"""Damaged files with right checksums: the product refuses what the reference refuses, and reads the rest alike."""

import pytest

from tests.fuzz import judge, mutants

CHUNKS, MUTANTS_EACH = 8, 2500


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_mutants_are_read_as_the_reference_reads_them(chunk):
    start = chunk * MUTANTS_EACH
    wrong = {}
    for k, data in enumerate(mutants("test", MUTANTS_EACH, start), start):
        found = judge(data, k)
        if found:
            wrong[k] = found
    assert not wrong    # python -m tests.fuzz --seed test --start K --mutants 1 --keep FOLDER writes mutant K
