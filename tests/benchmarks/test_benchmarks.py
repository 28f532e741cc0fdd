import json

import numpy as np
import pytest

from benchmarks.accuracy import top1, wilson_interval
from benchmarks.environment import describe_environment
from benchmarks.fidelity import compare_logits
from benchmarks.latency import measure_latency
from benchmarks.model_file import open_model
from benchmarks.records import ModelRecord, Results, read_results, write_results
from benchmarks.report import render_report
from benchmarks.size import size_record
from benchmarks.sparsity import layer_weights, sparsity_of, total_sparsity
from benchmarks.suite import add_accuracy, describe_model
from export.artifact import write_artifact
from export.errors import InputError, ModelpressError
from export.onnx_flavours import emit
from tests.conftest import small_model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_artifact(folder / "model.press", small_model())
    (folder / "model.onnx").write_bytes(emit(small_model(), flavour="float").SerializeToString())
    return [folder / "model.onnx", folder / "model.press"]


def test_size_record_adds_up_to_the_file(files):
    model = open_model(files[1])
    size = size_record(model.artifact, model.stored)
    parts = size.model_dump(exclude={"ladder"})
    assert sum(parts.values()) == files[1].stat().st_size
    assert size.ladder["float32"] == 4 * (72 + 12)
    assert size.ladder["int codes"] == 72 + 12
    assert size.ladder["as stored"] <= min(
        size.ladder[k] for k in ("bit-packed", "Huffman", "CSR + Huffman", "kernel masks + Huffman")
    )


def test_sparsity_counts_exact_zeros_of_running_weights(files):
    model = small_model()
    weights = layer_weights(open_model(files[1]).onnx_model)
    assert list(weights) == ["conv.weight", "fc.weight"]
    zeros = sum(int((t.dequantize() == 0).sum()) for t in model.quantized().values())
    assert total_sparsity(weights) == pytest.approx(zeros / 84)
    assert sparsity_of(np.zeros(0)) == 0.0


def test_both_formats_describe_the_same_weights(files):
    onnx, press = (describe_model(open_model(path)) for path in files)
    assert onnx.sparsity == press.sparsity
    assert [layer.weights for layer in onnx.layers] == [layer.weights for layer in press.layers]
    assert press.size_bytes == files[1].stat().st_size
    assert press.layers[0].bits == 4
    assert onnx.layers[0].bits is None
    assert sum(press.layers[0].grid_counts) == round(72 * (1 - press.layers[0].sparsity))


def test_accuracy_runs_the_file(files):
    images = np.random.default_rng(0).standard_normal((50, 2, 6, 6)).astype(np.float32)
    record = describe_model(open_model(files[1]))
    logits = add_accuracy(record, open_model(files[1]), images, np.zeros(50, np.int64))
    assert record.top1 == top1(logits, np.zeros(50, np.int64)) == np.mean(logits.argmax(1) == 0)
    assert record.top1_interval[0] <= record.top1 <= record.top1_interval[1]


def test_wilson_interval_is_the_textbooks():
    from scipy.stats import binomtest

    for hits, n in ((0, 10), (5, 10), (913, 1000), (1000, 1000)):
        expected = binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson_interval(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_differing_labels_count_only_where_logits_are_no_tie():
    reference = np.array([[1.0, 0.0], [1.0, 0.99995], [1.0, 0.0]], np.float32)
    candidate = np.array([[1.0, 0.0], [0.99995, 1.0], [0.0, 1.0]], np.float32)
    record = compare_logits(reference, candidate, reference_name="a", candidate_name="b")
    assert record.label_agreement == pytest.approx(1 / 3)
    assert record.differing_labels == 1
    assert record.largest_difference == 1.0


def test_latency_times_every_setting_of_every_file(files):
    turns = []
    measured = measure_latency(files, batches=(1, 2), threads=(1,), rounds=2, on_round=turns.append)
    assert turns == [files[0], files[1], files[1], files[0]]
    for records in measured.values():
        assert [(r.batch, r.threads) for r in records] == [(1, 1), (2, 1)]
        for r in records:
            assert 0 < r.min_ms <= r.p50_ms <= r.p90_ms <= r.p99_ms
            assert r.samples >= 24


def test_a_failing_worker_is_an_error_and_not_a_gap(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x08")
    with pytest.raises(ModelpressError, match=r"bad.onnx: timing failed: .*neither"):
        measure_latency([tmp_path / "bad.onnx"], batches=(1,), threads=(1,), rounds=1)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x08"])
def test_files_that_are_no_model_are_refused(tmp_path, content):
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match="neither a .press artifact nor an ONNX model"):
        open_model(path)


def test_results_survive_being_written(tmp_path, files):
    records = [describe_model(open_model(path)) for path in files]
    results = Results(environment=describe_environment(), models=records)
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["schema_version"] == 1
    wanted = {"name", "path", "format", "size_bytes", "sparsity", "top1", "n_images", "latency"}
    assert wanted <= set(document["models"][0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the document"),
        ('{"schema_version": 2}', "schema_version"),
        ("[]", "the document"),
        ('{"environment": {}, "models": []}', "models"),
    ],
)
def test_files_that_are_no_results_are_refused(tmp_path, text, message):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(InputError, match=f"is no results file of schema 1: {message}"):
        read_results(path)


def test_report_is_one_page_that_escapes_what_it_shows(files):
    record = describe_model(open_model(files[1]))
    record.path = "<script>alert(1)</script>"
    results = Results(environment={"cpu": "x"}, models=[ModelRecord(**{**record.model_dump(), "name": "a"})])
    page = render_report([results])
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    assert page.count("<svg") >= 2
    assert page == render_report([results])
