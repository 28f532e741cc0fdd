"""`modelpress bench FILE…`: what is measured, what is said, what is refused."""

import json
import os
import re

import numpy as np
import pytest
from onnx import TensorProto

from modelpress.benchmarks.environment import usable_cores
from modelpress.benchmarks.measures.single_stream import balanced_choice
from modelpress.benchmarks.records import read_results
from modelpress.export.errors import InputError
from modelpress.export.onnx_flavours import write_onnx
from modelpress.export.press.writing import write_artifact
from modelpress.export.quantized import QuantizedTensor
from modelpress.toolkit.commands.bench.tables import show_bench
from modelpress.toolkit.commands.given_inputs import parse_inputs
from modelpress.toolkit.data import measured_set
from modelpress.toolkit.data.data_set import DataSet, Split
from modelpress.toolkit.data.measured_set import MeasuredSet
from modelpress.toolkit.model_files import measuring
from modelpress.toolkit.model_files.measuring import BenchPlan
from modelpress.toolkit.progress import Silent
from tests.helpers.foreign_onnx import INFO, NODE, foreign, saved
from tests.helpers.graph_builder import INPUT, GraphBuilder
from tests.helpers.models import small_model

QUICK = ["--batch", "1", "--threads", "1", "--rounds", "1"]


def image_model(n_classes=10):
    """Pools images of 3x32x32 and classifies the averages."""
    rng = np.random.default_rng(3)
    codes = rng.integers(-7, 8, (n_classes, 3)).astype(np.int8)
    builder = GraphBuilder("images", (3, 32, 32))
    x = builder.flatten(builder.global_average_pool(INPUT))
    weight = QuantizedTensor(codes, bits=4, scale=np.float32(0.1))
    x = builder.gemm("fc", x, weight, np.zeros(n_classes, np.float32))
    return builder.finish(x, n_outputs=n_classes, metadata={"modelpress.dataset": "digits"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    for name, model in (("images", image_model()), ("six", image_model(6)), ("small", small_model())):
        write_artifact(folder / f"{name}.press", model)
        write_onnx(folder / f"{name}.onnx", model, flavour="float")
    return folder


def two_inputs(path):
    nodes = [NODE("Add", ["left", "right"], ["y"])]
    model = foreign(nodes, {}, y=("N", 4))
    del model.graph.input[:]
    model.graph.input.extend([INFO(name, TensorProto.FLOAT, ("N", 4)) for name in ("left", "right")])
    return saved(model, path)


def test_files_are_compared_in_every_way(folder, call, capsys, tmp_path):
    options = ["--dataset", "digits", "--batch", "1", "--threads", "1", "--rounds", "3", "--json"]
    target = tmp_path / "results.json"
    code, out, _ = call("bench", folder / "images.onnx", folder / "images.press", *options, "-o", target)
    assert code == 0
    document = json.loads(out)
    assert read_results(target).model_dump(mode="json") == document
    onnx, press = document["models"]
    assert onnx["top1"] == press["top1"]
    assert onnx["top5"] >= onnx["top1"]
    assert (onnx["paired"], press["paired"]["p_value"]) == (None, 1.0)
    assert [(r["batch"], r["threads"], r["rounds"]) for r in press["latency"]] == [(1, 1, 3)]
    assert press["verdicts"][0]["ratio_interval"][0] <= press["verdicts"][0]["ratio"]
    assert onnx["session_ratio"] == 1.0
    assert press["session_ms"] > 0
    assert sum(onnx["audit"]["emitted"].values()) == 3
    assert document["parity"]
    assert all(step["equal"] for step in document["parity"])
    show_bench(read_results(target), wide=True)
    printed = capsys.readouterr().out
    for shown in ("images.press", "Parity", "latency ratio", "McNemar p", "per s", "session", "memory"):
        assert shown in printed


def test_busy_machines_and_too_many_threads_are_noted(folder, monkeypatch):
    monkeypatch.setattr(measuring, "describe_environment", lambda: {"cores": 2, "load_average": [1.5, 0, 0]})
    monkeypatch.setattr(measuring, "add_latency", lambda *args, **options: ["a note on batches"])
    plan = BenchPlan(threads=(usable_cores() + 1,))
    notes = measuring.bench_files([folder / "small.onnx"], plan, Silent()).notes
    for part in ("load 1.5 on 2 cores", "threads on", "accuracy is not measured", "a note on batches"):
        assert any(part in note for note in notes)


def test_several_inputs_are_made_up_or_given(tmp_path, call):
    path = two_inputs(tmp_path / "two.onnx")
    code, out, _ = call("bench", path, *QUICK, "--json")
    assert code == 0
    assert [r["batch"] for r in json.loads(out)["models"][0]["latency"]] == [1]
    np.save(tmp_path / "x.npy", np.ones((2, 4), np.float32))
    given = [f"--input={name}={tmp_path / 'x.npy'}" for name in ("left", "right")]
    code, out, _ = call("bench", path, *QUICK, *given, "--json")
    assert code == 0
    assert [r["batch"] for r in json.loads(out)["models"][0]["latency"]] == [1]


@pytest.mark.parametrize(
    ("options", "expected", "message"),
    [
        (["--input", "images"], 2, "expected NAME=FILE.npy"),
        (["--input", "x=a.npy", "--input", "x=b.npy"], 2, "is given twice"),
        (["--input", "x=a.npy"], 1, "no model has an input of this name"),
        (["--input", "images=missing.npy"], 1, "missing.npy: cannot be read"),
        (["--shape", "images=1,two"], 2, "expected NAME=N,N"),
        (["--shape", "images=1,2,6,6", "--shape", "images=2,2,6,6"], 2, "is given twice"),
        (["--shape", "images=1,2,7,6"], 1, "--shape images=1,2,7,6: .*expects images float32"),
        (["--profile", "mlperf-tiny", "--batch", "8"], 2, "leave out --batch"),
        (["--dataset", "digits"], 1, r"expects images float32 \(N, 2, 6, 6\).*float32 \(N, 3, 32, 32\)"),
        (["--data-dir", "nowhere"], 1, "does not say what it was trained on: name the data set"),
    ],
)
def test_options_that_do_not_fit_are_one_line(folder, call, options, expected, message):
    code, _, err = call("bench", folder / "small.press", *options)
    assert code == expected
    assert "Traceback" not in err
    assert re.search(f"^modelpress: error: .*{message}", err.strip().splitlines()[-1])


def test_an_unknown_data_set_is_answered_with_those_there_are(folder, call):
    code, out, err = call("bench", folder / "small.press", "--dataset", "imagenet")
    assert (code, out) == (2, "")
    assert "imagenet" in err
    assert "cifar10" in err
    assert "digits" in err


def test_a_model_of_other_classes_is_refused_where_the_data_set_was_asked_for(folder):
    paths = [folder / "images.onnx", folder / "six.onnx"]
    plan = BenchPlan(data=MeasuredSet("digits"), batches=(1,), threads=(1,), rounds=1)
    with pytest.raises(InputError, match=r"six.onnx: the model gives 6 logits, the data set has 10 classes"):
        measuring.bench_files(paths, plan, Silent())


def test_a_model_of_other_classes_is_noted_where_it_was_not(folder):
    paths = [folder / "images.onnx", folder / "six.onnx"]
    plan = BenchPlan(batches=(1,), threads=(1,), rounds=1)
    results = measuring.bench_files(paths, plan, Silent())
    assert results.models[0].top1 is not None
    assert results.models[1].top1 is None
    assert any("six.onnx: the model gives 6 logits" in note for note in results.notes)


def test_an_empty_data_set_is_refused(folder, monkeypatch):
    nothing = Split.of(np.zeros((0, 3, 32, 32), np.uint8), np.zeros(0, np.int64))
    empty = DataSet("digits", ("a", "b"), nothing, nothing, nothing, (0.5,) * 3, (0.5,) * 3, False)
    monkeypatch.setattr(measured_set, "load_data_set", lambda name, **options: empty)
    with pytest.raises(InputError, match="the data set digits holds no test images"):
        measuring.bench_files([folder / "images.onnx"], BenchPlan(data=MeasuredSet("digits")), Silent())


def test_the_profile_runs_200_samples_one_at_a_time(folder, call):
    files = [folder / "images.onnx", folder / "images.press"]
    code, out, err = call("bench", "--profile", "mlperf-tiny", *files, "--rounds", "2", "--json")
    assert code == 0
    results = json.loads(out)
    profile = results["profile"]
    assert (profile["name"], profile["n_samples"], profile["passes"]) == ("mlperf-tiny", 200, 2)
    assert (profile["batch"], profile["threads"]) == (1, 1)
    assert profile["label"] == "not an official MLPerf result"
    assert "not an official MLPerf result" in " ".join(err.split())
    assert "20 of each class" in profile["images"]
    first, second = profile["models"]
    assert first["top1"] == second["top1"]
    for entry in (first, second):
        assert 0 < entry["p50_ms"] <= entry["p90_ms"]
        assert entry["inferences_per_second"] == pytest.approx(1e3 / entry["p50_ms"])
    assert results["models"][0]["latency"] == []


def test_the_profile_of_a_model_without_data_is_latency_only(folder):
    plan = BenchPlan(rounds=1)
    profile = measuring.bench_profile([folder / "small.press"], plan, Silent()).profile
    assert profile.images == "random numbers, seed 0"
    assert profile.models[0].top1 is None


def test_the_profile_refuses_other_classes_before_anything_is_timed(folder, monkeypatch):
    paths = [folder / "images.onnx", folder / "six.onnx"]
    monkeypatch.setattr(measuring, "measure_profile", None)
    with pytest.raises(InputError, match=r"six.onnx: the model gives 6 logits, the data set has 10 classes"):
        measuring.bench_profile(paths, BenchPlan(data=MeasuredSet("digits"), rounds=1), Silent())


def test_the_profile_of_a_file_of_other_classes_is_latency_only_where_no_data_set_was_asked_for(folder):
    paths = [folder / "images.onnx", folder / "six.onnx"]
    results = measuring.bench_profile(paths, BenchPlan(rounds=1), Silent())
    assert [entry.top1 for entry in results.profile.models] == [None, None]
    assert any("six.onnx: the model gives 6 logits" in note for note in results.notes)


def test_the_profile_refuses_what_does_not_run_one_at_a_time(tmp_path):
    nodes = [NODE("Identity", ["x"], ["y"])]
    path = saved(foreign(nodes, {}, x=(4, 3), y=(4, 3)), tmp_path / "four.onnx")
    with pytest.raises(InputError, match=r"four.onnx: .*\(4, 3\); the profile runs one image at a time"):
        measuring.bench_profile([path], BenchPlan(rounds=1), Silent())
    path = saved(foreign(nodes, {}, x=("N", "L"), y=("N", "L")), tmp_path / "open.onnx")
    with pytest.raises(InputError, match=r"open.onnx: .*needs fixed axes but for the batch"):
        measuring.bench_profile([path], BenchPlan(rounds=1), Silent())


@pytest.mark.parametrize(
    ("labels", "n_classes", "message"),
    [
        (np.zeros(300, np.int64), 10, "class 1 has 0 test images"),
        (np.arange(300) % 3, 3, "shared out evenly"),
    ],
)
def test_a_data_set_without_200_balanced_images_is_refused(labels, n_classes, message):
    with pytest.raises(InputError, match=message):
        balanced_choice(labels, n_classes)


def test_the_figures_are_shown_where_they_cannot_be_written(folder, call, tmp_path, monkeypatch):
    def full_disk(path, results):
        raise InputError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr("modelpress.benchmarks.records.write_results", full_disk)
    code, out, err = call("bench", folder / "small.onnx", *QUICK, "-o", tmp_path / "results.json")
    assert code == 1
    assert "Latency: milliseconds per batch" in out
    assert "No space left on device" in err


def test_names_of_inputs_may_hold_colons():
    assert {name: path.name for name, path in parse_inputs(["a:0/b=c=d.npy"])[0].items()} == {
        "a:0/b": "c=d.npy"
    }


def test_a_file_given_twice_is_refused(folder):
    with pytest.raises(InputError, match="given twice"):
        measuring.bench_files([folder / "six.onnx"] * 2, BenchPlan(), Silent())


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_links_in_a_circle_are_refused(tmp_path):
    (tmp_path / "loop.onnx").symlink_to("loop.onnx")
    with pytest.raises(InputError, match=r"loop.onnx: cannot be read"):
        measuring.bench_files([tmp_path / "loop.onnx"], BenchPlan(), Silent())


def test_files_of_different_normalisation_are_not_profiled_together(tmp_path):
    paths = []
    for name, mean in (("a", 0.2), ("b", 0.3)):
        model = image_model()
        rule = {"layout": "NCHW", "mean": [mean] * 3, "std": [0.5] * 3}
        model.graph.metadata_props.add(key="modelpress.input", value=json.dumps(rule))
        paths.append(tmp_path / f"{name}.press")
        write_artifact(paths[-1], model)

    plan = BenchPlan(data=MeasuredSet("digits"), rounds=2)
    with pytest.raises(
        InputError, match="the files normalise their input differently; profile them one by one"
    ):
        measuring.bench_profile(paths, plan, Silent())
