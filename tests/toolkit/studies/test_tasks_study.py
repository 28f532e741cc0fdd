"""The small form of each task of the study: from a user's files to a bundle that holds without this project."""

import json
import re
import subprocess
import sys

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
    if row.name == "images":
        check_its_accuracy_is_measured_again_on_files(tmp_path / "bundle", tmp_path / "data")


def check_its_accuracy_is_measured_again_on_files(bundle, data):
    """By its own script: the folder was split by a seed, and so are the lines of a table of the same files."""
    (folder,) = data.iterdir()
    files = sorted(path.relative_to(data) for path in folder.rglob("*.png"))
    table, others = folder.with_suffix(".csv"), folder.with_name("others.csv")
    lines = [f"{path},{path.parent.name}\n" for path in files]
    table.write_text("path,label\n" + "".join(lines))
    others.write_text("path,label\n" + "".join(lines[::2]))
    for source, holds in ((folder, True), (table, True), (others, False)):
        done = subprocess.run(
            [sys.executable, bundle / "verify.py", "--data", source],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == (0 if holds else 1), done.stdout + done.stderr
        word = "held" if holds else "FAILED"
        assert re.search(rf"^{word} +accuracy: claimed", done.stdout, re.MULTILINE), done.stdout
    assert not list(bundle.rglob("*.pyc"))


def test_the_published_table_is_that_of_the_record():
    from modelpress.toolkit.commands.study.tasks import table_of

    record = json.loads((ROOT / "benchmarks" / "results" / "tasks.json").read_bytes())
    page = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
    assert table_of(record) in page
    table = next(task for task in record["tasks"] if task["name"] == "table")
    assert table["zeros"] >= 0.8
    assert table["top1"] >= table["float_top1"] - 0.01
