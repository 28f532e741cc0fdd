"""The mutants that know the format, a few of them; and the command that makes thousands."""

import io
import json
import sys
from time import process_time

import pytest

from modelpress.export.errors import ArtifactError
from modelpress.export.press.reading import Artifact
from tests.attack import __main__ as command
from tests.attack.mutators import MUTATORS, many_tables
from tests.fuzz import MAX_DECODED_BYTES, bases, compiled, not_compiled
from tests.reference.agreement import judged
from tests.reference.press_writer import assemble

MUTANTS = 300


@pytest.mark.parametrize("way", [not_compiled, compiled])
def test_mutants_of_every_part_are_read_as_the_reference_reads_them(way):
    seen, wrong = set(), {}
    with way():
        for k in range(MUTANTS):
            name, outcome, found, _ = command.attack("test", k)
            seen.add((name, outcome == "read"))
            if found:
                wrong[k] = found
    assert not wrong
    assert seen == {(change.__name__, read) for _, change in MUTATORS for read in (False, True)}


def test_as_many_code_tables_as_fit_cost_no_more_than_their_bytes():
    data = assemble(bases()[0][1][0], tables=many_tables(b"\0\2\x11"))
    began = process_time()
    assert len(Artifact(io.BytesIO(data), max_decoded_bytes=MAX_DECODED_BYTES).shared) == 255
    assert process_time() - began < 10  # a third of a second; far above, so that no machine is too slow
    assert judged(data, max_decoded_bytes=MAX_DECODED_BYTES)[1] is None
    with pytest.raises(ArtifactError):
        Artifact(io.BytesIO(assemble(bases()[0][1][0], tables=many_tables(b"\0\2\x12"))))


def test_a_stopped_attack_is_continued_and_counts_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "SAVE_EVERY", 7)

    def counts(path, *numbers):
        for number in numbers:
            arguments = ["--mutants", number, "--seed", "s", "--way", "plain", "--summary", path]
            monkeypatch.setattr(sys, "argv", ["attack", *map(str, arguments)])
            with pytest.raises(SystemExit, match="False"):
                command.main()
        facts = json.loads(path.read_text())["ways"]["plain"]
        del facts["processor_seconds"]
        return facts

    whole = counts(tmp_path / "whole.json", 40)
    assert whole["mutants"] == sum(whole["outcomes"].values()) == 40
    assert counts(tmp_path / "parts.json", 3, 20, 40) == whole
