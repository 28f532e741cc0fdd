"""Results, reports and manifests say nothing of the folders of the machine they were made on."""

import json
import shutil
from pathlib import Path

import pytest

from modelpress.export.press.writing import write_artifact
from modelpress.toolkit.output_folder import without_local_paths
from tests.helpers.models import small_model


@pytest.fixture
def results(tmp_path, call):
    """Of two files of one name, with a data folder that does not hold what it should."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_artifact(tmp_path / name / "model.press", small_model())
    output = tmp_path / "a" / "results.json"
    files = [tmp_path / "a" / "model.press", tmp_path / "b" / "model.press"]
    code, _, err = call("bench", *files, "--batch", 1, "--threads", 1, "--rounds", 1, "-o", output)
    assert code == 0, err
    return output


def test_results_and_reports_hold_no_absolute_path(results, tmp_path, call):
    again = shutil.copy(results, tmp_path / "b")
    outputs = [tmp_path / "report.html", tmp_path / "report.md"]
    for output in outputs:
        assert call("report", results, again, "-o", output)[0] == 0
    for path in (results, *outputs):
        text = path.read_text()
        assert str(tmp_path) not in text, path
        assert str(Path.home()) + "/" not in text, path
    assert [model["path"] for model in json.loads(results.read_text())["models"]] == [
        "a/model.press",
        "b/model.press",
    ]


def test_a_recipe_is_recorded_with_the_last_parts_of_its_paths(tmp_path):
    recipe = {
        "data": {"dir": "/home/me/cifar10"},
        "model": {"checkpoint": str(tmp_path / "nets" / "a.pt"), "teacher": "mine/b.pt"},
        "seed": 1,
    }
    assert without_local_paths(recipe, tmp_path) == {
        "data": {"dir": "cifar10"},
        "model": {"checkpoint": "nets/a.pt", "teacher": "mine/b.pt"},
        "seed": 1,
    }
    assert recipe["data"]["dir"] == "/home/me/cifar10"  # what is run stays
