"""The small form of each task of the study: from a user's files to a bundle that holds without this project."""

import json

import pytest

from modelpress.toolkit.commands.study.tasks import run_row
from modelpress.toolkit.progress import Silent
from modelpress.toolkit.studies.tasks.rows import ROWS
from tests.helpers.paths import ROOT

pytest.importorskip("PIL")
QUICK = {"train.epochs": 1, "finetune.epochs": 1, "bench.rounds": 1, "pack.effort": "fast", "onnx": ["int8"]}
FEW = {"images": 120, "table": 160, "sounds": 100, "tokens": 120}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_task_ends_in_a_bundle_that_holds_alone(row, tmp_path, monkeypatch):
    # the figures of a report take as long as all the rest, and have tests of their own
    monkeypatch.setattr("modelpress.toolkit.compression.run.write_report", lambda path, results: path.touch())
    record = run_row(row, tmp_path, Silent(), settings=QUICK, limit=FEW[row.name])
    held, failed, _ = (int(part.split()[0]) for part in record.verified.split(","))
    assert (held, failed) == (6, 0)
    assert record.n_test == pytest.approx(0.2 * FEW[row.name], abs=5)  # a fifth of each class
    assert 0.45 < record.zeros < 0.85
    assert record.press_bytes < record.float_bytes / 2
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_bytes())
    assert manifest["claims"]["accuracy"]["top1"] == record.top1
    assert str(tmp_path) not in (tmp_path / "bundle" / "manifest.json").read_text()


def test_the_published_table_is_that_of_the_record():
    from modelpress.toolkit.commands.study.tasks import table_of

    record = json.loads((ROOT / "benchmarks" / "results" / "tasks.json").read_bytes())
    page = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
    assert table_of(record) in page
    table = next(task for task in record["tasks"] if task["name"] == "table")
    assert table["zeros"] >= 0.8
    assert table["top1"] >= table["float_top1"] - 0.01
