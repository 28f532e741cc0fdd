"""results.json: written, read again, and read from before."""

import json

import pytest

from modelpress.benchmarks.environment import busy_note, describe_environment
from modelpress.benchmarks.measures.verdict import verdict_of
from modelpress.benchmarks.records import (
    ModelRecord,
    PairedTest,
    Results,
    VerdictRecord,
    read_results,
    write_results,
)
from modelpress.benchmarks.report.page import render_markdown, render_report
from modelpress.benchmarks.subjects.model_file import open_model
from modelpress.benchmarks.suite import describe_model
from modelpress.export.errors import InputError
from modelpress.export.press.writing import write_artifact
from tests.helpers.models import small_model
from tests.helpers.paths import ROOT

COMMITTED = sorted((ROOT / "benchmarks" / "results").glob("resnet20-*.json"))
V1 = '{"schema_version": 1, "environment": {}, "models": [{"name": "m", "path": "m.onnx", "format": "onnx", '
V1 += '"size_bytes": 9, "sparsity": null, "latency": [{"batch": 1, "threads": 1, "p50_ms": 1, "p90_ms": 1, '
V1 += '"p99_ms": 1, "min_ms": 1, "samples": 9}]}]}'


@pytest.fixture
def record(tmp_path):
    write_artifact(tmp_path / "model.press", small_model())
    return describe_model(open_model(tmp_path / "model.press"))


def test_results_survive_being_written(tmp_path, record):
    record.paired = PairedTest(n_only_baseline=1, n_only_this=2, p_value=0.5)
    record.verdicts = [
        VerdictRecord(
            batch=1, threads=1, ratio=1, ratio_interval=None, min_ratio=1, rounds=2, verdict="undecided"
        )
    ]
    results = Results(environment=describe_environment(), models=[record], notes=["a note"])
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["schema_version"] == 2
    wanted = {"name", "path", "format", "size_bytes", "sparsity", "top1", "n_images", "latency", "verdicts"}
    assert wanted <= set(document["models"][0])


def test_schema_1_is_read_and_becomes_schema_2(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(V1)
    results = read_results(path)
    assert results.schema_version == 2
    assert results.models[0].latency[0].mean_ms is None
    assert "m.onnx" in render_report([results])
    assert "latency ratio" not in render_markdown([results])
    write_results(path, results)
    assert read_results(path) == results


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_results_in_the_repository_are_still_read(path):
    results = read_results(path)
    assert results.models[0].latency
    assert results.models[0].top1 is not None


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_verdicts_in_the_repository_follow_the_rule(path):
    for model in read_results(path).models:
        assert [v.verdict for v in model.verdicts] == [verdict_of(v.ratio_interval) for v in model.verdicts]


def test_file_names_that_are_not_utf8_are_escaped(tmp_path, record):
    name = b"caf\xe9.onnx".decode("utf-8", "surrogateescape")
    facts = record.model_dump() | {"path": name}
    written = Results(environment={}, models=[ModelRecord(**facts)], notes=[f"{name}: a note"])
    write_results(tmp_path / "results.json", written)
    assert read_results(tmp_path / "results.json").models[0].path == "caf\\udce9.onnx"


@pytest.mark.parametrize(("field", "value"), [("p50_ms", 0), ("p50_ms", -1), ("batch", 0), ("threads", 0)])
def test_latencies_that_cannot_be_are_refused(tmp_path, field, value):
    document = json.loads(V1)
    document["models"][0]["latency"][0][field] = value
    (tmp_path / "results.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=rf"models.0.latency.0.{field}: Input should be greater than 0"):
        read_results(tmp_path / "results.json")


def test_there_are_results_in_the_repository():
    assert COMMITTED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the document"),
        ('{"schema_version": 3}', "schema_version"),
        ("[]", "the document"),
        ('{"environment": {}, "models": []}', "models"),
    ],
)
def test_files_that_are_no_results_are_refused(tmp_path, text, message):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(InputError, match=f"is no results file of schema 1 or 2: {message}"):
        read_results(path)


def test_a_busy_machine_is_told_where_the_load_is_known():
    assert "load 3.0 on 4 cores" in busy_note({"cores": 4, "load_average": [3.0, 0.0, 0.0]})
    assert busy_note({"cores": 4, "load_average": [2.0, 9.0, 9.0]}) == ""
    assert busy_note({"cores": 4, "load_average": None}) == ""


def test_the_environment_names_machine_and_versions():
    found = describe_environment()
    assert found["cores"] >= 1
    assert {"cpu", "instruction_sets", "physical_cores", "load_average", "date"} <= set(found)
    assert {"numpy", "onnxruntime"} <= set(found["versions"])
    assert json.loads(json.dumps(found)) == found
