"""What models are fed with, what one turn measures, and the verdict."""

import os
import signal
import sys
import weakref
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto
from scipy.stats import t

from modelpress.benchmarks.measures import latency_worker, worker
from modelpress.benchmarks.measures.latency import Contestant, Loading, Turn, latency_records, measure_latency
from modelpress.benchmarks.measures.latency_worker import time_calls
from modelpress.benchmarks.measures.memory import highest_memory
from modelpress.benchmarks.measures.verdict import compare_rounds, mean_interval, verdict_of
from modelpress.benchmarks.measures.worker import run_worker
from modelpress.benchmarks.subjects.feeding import Feed, calls_with, plan_inputs
from modelpress.benchmarks.subjects.given import NOTHING, read_given
from modelpress.benchmarks.subjects.inputs import (
    InputSpec,
    check_names,
    check_takes_images,
    input_specs,
)
from modelpress.benchmarks.subjects.model_file import open_model
from modelpress.benchmarks.suite import add_latency, describe_model, plan_all
from modelpress.export.errors import InputError, ModelpressError
from modelpress.export.onnx_flavours import emit
from modelpress.export.press.writing import write_artifact
from modelpress.export.sessions import load_session
from tests.helpers.foreign_onnx import INFO, NODE, foreign, saved
from tests.helpers.models import small_model

IMAGES = InputSpec("images", "float32", ("N", 3, 4, 4))
IDS = InputSpec("ids", "int64", ("N", "L"))
MASK = InputSpec("mask", "bool", ("N", "L"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_artifact(folder / "model.press", small_model())
    (folder / "model.onnx").write_bytes(emit(small_model(), flavour="float").SerializeToString())
    return [folder / "model.onnx", folder / "model.press"]


def contestant(path, *batches):
    return Contestant(
        path, plan_inputs(path.name, input_specs(open_model(path).onnx_model), NOTHING, batches)
    )


def stored(path, array):
    np.save(path, array)
    return path


def two_inputs(path, axes=("N", "L")):
    """Token ids and a mask, as language models take them."""
    nodes = [
        NODE("Cast", ["ids"], ["a"], to=TensorProto.FLOAT),
        NODE("Cast", ["mask"], ["b"], to=TensorProto.FLOAT),
        NODE("Mul", ["a", "b"], ["y"]),
    ]
    model = foreign(nodes, {}, y=axes)
    del model.graph.input[:]
    model.graph.input.extend([INFO("ids", TensorProto.INT64, axes), INFO("mask", TensorProto.BOOL, axes)])
    return saved(model, path)


# What models are fed with


def test_inputs_are_read_from_the_graph_without_its_initializers():
    model = foreign([NODE("Add", ["x", "w"], ["y"])], {"w": np.ones(4, np.float32)}, x=("N", None, -1, 4))
    model.graph.input.append(INFO("w", TensorProto.FLOAT, [4]))
    assert input_specs(model) == [InputSpec("x", "float32", ("N", "?", "?", 4))]


def test_a_model_without_inputs_is_refused():
    model = foreign([NODE("Identity", ["w"], ["y"])], {"w": np.ones(4, np.float32)})
    del model.graph.input[:]
    with pytest.raises(InputError, match="has no inputs"):
        input_specs(model)


def test_an_input_that_is_no_tensor_is_refused():
    model = foreign([NODE("SequenceLength", ["s"], ["y"])], {})
    del model.graph.input[:]
    sequence = onnx.helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, ["N"])
    model.graph.input.append(sequence)
    with pytest.raises(InputError, match="input s is no tensor"):
        input_specs(model)


def test_images_get_seeded_random_numbers_of_every_batch_size():
    plan = plan_inputs("m", [IMAGES], NOTHING, (1, 8))
    assert plan.note == ""
    assert [feeds[0].array().shape for feeds in plan.feeds.values()] == [(1, 3, 4, 4), (8, 3, 4, 4)]
    assert np.array_equal(plan.feeds[8][0].array(), plan.feeds[8][0].array())


def test_a_fixed_batch_axis_is_timed_at_that_batch_and_says_so():
    plan = plan_inputs("m.onnx", [InputSpec("x", "float32", (4, 3))], NOTHING, (1, 8))
    assert list(plan.feeds) == [4]
    assert plan.note == "m.onnx: its batch axis is fixed: timed at batch 4 only"
    assert plan_inputs("m.onnx", [InputSpec("x", "float32", (4, 3))], NOTHING, (4,)).note == ""


@pytest.mark.parametrize(
    ("specs", "shapes"),
    [
        ([IDS, MASK], [(3, 16), (3, 16)]),
        ([InputSpec("x", "float32", ("N", 3, "H", "W"))], [(3, 3, 16, 16)]),
        ([InputSpec("x", "float32", ("T", "batch", 64))], [(16, 3, 64)]),
        (
            [InputSpec("audio", "float32", ("N", "L")), InputSpec("state", "float32", (2, "N", 128))],
            [(3, 16), (2, 3, 128)],
        ),
        ([IMAGES, InputSpec("k", "int64", ())], [(3, 3, 4, 4), ()]),
        ([InputSpec("x", "float32", ("?", "?"))], [(3, 16)]),
    ],
)
def test_inputs_are_made_of_the_declared_types_and_shapes(specs, shapes):
    plan = plan_inputs("m.onnx", specs, NOTHING, (3,))
    arrays = [feed.array() for feed in plan.feeds[3]]
    assert [array.shape for array in arrays] == shapes
    assert [array.dtype.name for array in arrays] == [spec.dtype for spec in specs]
    assert "m.onnx: made up: " in plan.note


def test_integers_lie_within_their_table_and_masks_hide_nothing():
    ids, mask = InputSpec("ids", "int64", ("N", 400), rows=7), InputSpec("mask", "int64", ("N", 400))
    made, ones = (feed.array() for feed in plan_inputs("m", [ids, mask], NOTHING, (2,)).feeds[2])
    assert sorted(set(made.ravel().tolist())) == list(range(7))
    assert (ones == 1).all()


def test_given_shapes_count_and_axes_of_one_name_have_one_length():
    given = read_given({}, shapes={"ids": (2, 5)})
    (feeds,) = calls_with("m", [IDS, MASK], given)
    assert [feed.shape for feed in feeds] == [(2, 5), (2, 5)]
    assert [feed.shape for feed in plan_inputs("m", [IDS, MASK], given, (1, 8)).feeds[8]] == [(8, 5), (8, 5)]


def test_a_shape_that_does_not_fit_is_refused():
    given = read_given({}, shapes={"ids": (2, 5, 1)})
    with pytest.raises(InputError, match=r"--shape ids=2,5,1: m.onnx expects ids int64 \(N, L\)"):
        plan_inputs("m.onnx", [IDS], given, (1,))


def test_calls_are_read_from_archives_and_from_a_folder_of_arrays(tmp_path):
    both = {"ids": np.ones((1, 3), np.int64), "mask": np.ones((1, 3), np.bool_)}
    for number in range(2):
        np.savez(tmp_path / f"{number}.npz", **both)
    folder = tmp_path / "arrays"
    folder.mkdir()
    for name, array in both.items():
        np.save(folder / f"{name}.npy", array)

    calls = calls_with("m", [IDS, MASK], read_given({}, [tmp_path, folder, tmp_path / "0.npz"]))
    assert len(calls) == 4
    assert all(np.array_equal(feed.array(), both[feed.name]) for call in calls for feed in call)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds neither .npz files"):
        read_given({}, [tmp_path / "empty"])


def test_an_open_shape_is_asked_for():
    with pytest.raises(InputError, match=r"m.onnx: the shape of input x is open. Give it, --shape x=1,80"):
        plan_inputs("m.onnx", [InputSpec("x", "float32", None)], NOTHING, (1,))


@pytest.mark.parametrize(
    ("nodes", "rows"),
    [
        ([NODE("Gather", ["w", "x"], ["y"])], 5),
        ([NODE("Unsqueeze", ["x", "axis"], ["u"]), NODE("Gather", ["w", "u"], ["y"], axis=1)], 3),
        ([NODE("Cast", ["x"], ["y"], to=1)], 0),
        ([NODE("Neg", ["w"], ["v"]), NODE("Gather", ["v", "x"], ["y"])], 5),
    ],
)
def test_the_table_that_an_input_indexes_is_found(nodes, rows):
    tensors = {"w": np.zeros((5, 3), np.float32), "axis": np.array([0])}
    model = foreign(nodes, tensors, x=("N",), y=None, elem=TensorProto.INT64)
    assert [spec.rows for spec in input_specs(model)] == [rows]


def test_batches_that_would_fill_the_memory_are_left_out_and_said(tmp_path):
    w = np.zeros((1 << 10, 1, 1, 1), np.float32)
    nodes = [NODE("Conv", ["x", "w"], ["h"]), NODE("GlobalAveragePool", ["h"], ["y"])]
    path = saved(foreign(nodes, {"w": w}, x=("N", 1, 64, 64), y=None), tmp_path / "large.onnx")
    (plan,) = plan_all([open_model(path)], NOTHING, (1, 8, 64), bounded=True)
    assert list(plan.feeds) == [1, 8]
    assert "left out batch 64, whose activations take 1,0" in plan.note
    assert list(plan_all([open_model(path)], NOTHING, (1, 64))[0].feeds) == [1, 64]


def test_arrays_are_cut_and_repeated_along_the_batch(tmp_path):
    array = np.arange(6).reshape(2, 3)
    given = {"ids": stored(tmp_path / "ids.npy", array), "other": Path("of another model")}
    feeds = plan_inputs("m", [IDS], read_given(given), (1, 2, 5)).feeds
    assert [len(f) for f in feeds.values()] == [1, 1, 1]
    expected = {1: array[:1], 2: array, 5: array[[0, 1, 0, 1, 0]]}
    for batch, wanted in expected.items():
        assert np.array_equal(feeds[batch][0].array(), wanted)


def test_arrays_of_different_lengths_are_used_as_they_are(tmp_path):
    given = {
        "ids": stored(tmp_path / "ids.npy", np.zeros((2, 3), np.int64)),
        "mask": stored(tmp_path / "mask.npy", np.zeros((4, 3), np.bool_)),
    }
    plan = plan_inputs("m", [IDS, MASK], read_given(given), (1, 8))
    assert {batch: [f.array().shape for f in feeds] for batch, feeds in plan.feeds.items()} == {
        2: [(2, 3), (4, 3)]
    }
    assert "timed at batch 2 only" in plan.note


def test_a_fixed_input_beside_a_batch_stays_as_it_is(tmp_path):
    temperature = InputSpec("temperature", "float32", (1,))
    given = {
        "ids": stored(tmp_path / "ids.npy", np.zeros((2, 3), np.int64)),
        "temperature": stored(tmp_path / "t.npy", np.ones(1, np.float32)),
    }
    (feeds,) = plan_inputs("m", [IDS, temperature], read_given(given), (4,)).feeds.values()
    assert [f.shape for f in feeds] == [(4, 3), (1,)]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3), np.int32), r"holds int32; m.onnx expects int64: save array.astype\('int64'\)"),
        (np.zeros(3, np.int64), r"has shape \(3,\); m.onnx expects ids int64 \(N, L\)"),
        (np.zeros((0, 3), np.int64), "is empty"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, array, message):
    path = stored(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=f"--input ids=.*a.npy: {message}"):
        plan_inputs("m.onnx", [IDS], read_given({"ids": path}), (1,))


def test_files_that_hold_no_plain_array_are_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "several.npz", a=np.zeros(1))
    (tmp_path / "text.npy").write_text("text")
    (tmp_path / "empty.npy").write_text("")
    (tmp_path / "zip.npy").write_bytes(b"PK\x03\x04 and no zip file")
    with (tmp_path / "huge.npy").open("wb") as file:
        header = {"descr": "<i8", "fortran_order": False, "shape": (1 << 44, 3)}
        np.lib.format.write_array_header_1_0(file, header)
    for name, message in (
        ("objects.npy", "is no .npy file of numbers"),
        ("text.npy", "is no .npy file of numbers"),
        ("empty.npy", "is no .npy file of numbers"),
        ("zip.npy", "is no .npy file of numbers"),
        ("huge.npy", "declares more numbers than the memory can hold"),
        ("several.npz", "holds several arrays"),
        ("missing.npy", "cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            plan_inputs("m", [IDS], read_given({"ids": tmp_path / name}), (1,))


def test_an_array_for_no_input_is_refused_with_the_inputs_there_are():
    check_names(["ids", "images"], [[IDS], [IMAGES]])
    with pytest.raises(InputError, match=r"--input image=….* there are: ids int64 .*; images float32"):
        check_names(["image"], [[IDS], [IMAGES]])


@pytest.mark.parametrize(
    "spec", [IDS, InputSpec("x", "float32", ("N", 1, 4, 4)), InputSpec("x", "float16", None)]
)
def test_models_that_take_no_such_images_are_told_apart(spec):
    check_takes_images([IMAGES], (3, 4, 4))
    with pytest.raises(
        InputError, match=r"expects (ids|x).*images of the data set are float32 \(N, 3, 4, 4\)"
    ):
        check_takes_images([spec], (3, 4, 4))


def test_an_axis_of_length_0_is_refused():
    model = foreign([NODE("Identity", ["x"], ["y"])], {}, x=(0, 4), y=(0, 4))
    with pytest.raises(InputError, match=r"input x float32 \(0, 4\) has an axis of length 0"):
        input_specs(model)


def test_an_input_of_strings_is_refused():
    model = foreign([NODE("Identity", ["x"], ["y"])], {}, elem=TensorProto.STRING)
    with pytest.raises(InputError, match="input x takes strings"):
        input_specs(model)


# One turn


def test_latency_times_every_setting_of_every_file(files):
    turns = []
    measured = measure_latency(
        [contestant(path, 2, 1) for path in files], threads=(1,), rounds=2, on_round=turns.append
    )
    assert turns == [files[0], files[1], files[1], files[0]]
    for found in measured:
        assert all(turn.session_ns > 0 and turn.first_inference_ns > 0 for turn in found)
        records = latency_records(found)
        assert [(r.batch, r.threads) for r in records] == [(1, 1), (2, 1)]
        for r in records:
            assert 0 < r.min_ms <= r.p50_ms <= r.p90_ms <= r.p95_ms <= r.p99_ms
            assert r.mean_interval_ms[0] < r.mean_interval_ms[1]
            assert r.images_per_second == pytest.approx(1e3 * r.batch / r.mean_ms)
            assert r.samples >= 24
            assert r.rounds == 2


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_peak_memory_grows_with_the_batch(files):
    small, large = (
        measure_latency([contestant(files[0], n)], threads=(1,), rounds=1)[0] for n in (1, 1 << 15)
    )
    grown = large[0].peak_memory_bytes - small[0].peak_memory_bytes
    assert grown > 4 * 2 * 36 * (1 << 15)  # the input alone


def test_no_two_sessions_are_alive_at_once(files, monkeypatch):
    sessions, alive = [], []

    def load(path, **options):
        alive.append(sum(session() is not None for session in sessions))
        session = load_session(path, **options)
        sessions.append(weakref.ref(session))
        return session

    monkeypatch.setattr(latency_worker, "load_session", load)
    monkeypatch.setattr(latency_worker, "time_calls", lambda call: [call() and 1])
    feeds = {"1": [{"name": "images", "dtype": "float32", "shape": (1, 2, 6, 6)}]}
    latency_worker.take_turn({"path": str(files[0]), "threads": [1, 2, 3], "feeds": feeds})
    assert alive == [0, 0, 0, 0]


def test_sessions_of_both_formats_do_not_spin_where_asked(files):
    for path in files:
        options = load_session(path, threads=2, spinning=False).get_session_options()
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)


def test_both_formats_give_the_same_session(files):
    images = np.random.default_rng(0).standard_normal((5, 2, 6, 6)).astype(np.float32)
    outputs = [load_session(path, threads=1).run(None, {"images": images})[0] for path in files]
    assert np.array_equal(*outputs)


def test_several_inputs_are_timed_with_the_arrays_given(tmp_path):
    path = two_inputs(tmp_path / "ids.onnx")
    given = {
        "ids": stored(tmp_path / "ids.npy", np.ones((2, 3), np.int64)),
        "mask": stored(tmp_path / "mask.npy", np.ones((2, 3), np.bool_)),
    }
    models = [open_model(path)]
    records = [describe_model(model) for model in models]
    plans = plan_all(models, read_given(given), (1, 4))
    notes = add_latency(records, models, plans, threads=(1,), rounds=1)
    assert notes == []
    assert [r.batch for r in records[0].latency] == [1, 4]
    assert records[0].session_ratio == 1.0
    assert records[0].verdicts == []


def test_verdicts_are_given_where_both_files_ran(tmp_path, files):
    model = emit(small_model(), flavour="float")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    models = [open_model(files[0]), open_model(saved(model, tmp_path / "fixed.onnx"))]
    records = [describe_model(model) for model in models]
    plans = plan_all(models, NOTHING, (1, 2))
    (note,) = add_latency(records, models, plans, threads=(1,), rounds=1)
    assert "timed at batch 2 only" in note
    (verdict,) = records[1].verdicts
    assert (verdict.batch, verdict.threads, verdict.verdict) == (2, 1, "undecided")
    assert verdict.ratio_interval is None
    assert records[1].session_ms > 0
    assert records[1].session_ratio is None  # first inferences of one image and of two


def test_a_failing_worker_is_an_error_and_not_a_gap(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x08")
    plan = plan_inputs("bad.onnx", [IMAGES], NOTHING, (1,))
    with pytest.raises(ModelpressError, match=r"bad.onnx: timing failed: ONNX Runtime cannot load"):
        measure_latency([Contestant(tmp_path / "bad.onnx", plan)], threads=(1,), rounds=1)


def test_a_call_that_fails_names_the_batch(files):
    plan = plan_inputs("m", [InputSpec("images", "float32", ("N", 3, 6, 6))], NOTHING, (4,))
    with pytest.raises(ModelpressError, match=r"model.onnx: timing failed: batch 4: ONNX Runtime failed"):
        measure_latency([Contestant(files[0], plan)], threads=(1,), rounds=1)


@pytest.mark.parametrize(
    ("script", "message", "timeout_s"),
    [
        (f"import os; os.kill(os.getpid(), {signal.SIGTERM.value})", r"ended by signal 15 \(SIGTERM\)$", 600),
        ("import os; os._exit(7)", "exit code 7", 600),
        ("print('no result')", "ended without a result", 600),
        ("import time; time.sleep(600)", "took longer than 2 s; use smaller batches", 2),
    ],
)
def test_a_worker_that_dies_or_hangs_is_reported_with_its_file(
    tmp_path, monkeypatch, script, message, timeout_s
):
    (tmp_path / "doomed_worker.py").write_text(script)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    with pytest.raises(ModelpressError, match=f"m.onnx: .*{message}"):
        run_worker("doomed_worker", Path("m.onnx"), {}, timeout_s=timeout_s)


def test_a_killed_worker_hints_at_memory(monkeypatch):
    done = worker.subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(worker.subprocess, "run", lambda *args, **options: done)
    with pytest.raises(ModelpressError, match=r"signal 9 \(SIGKILL\); out of memory\? Use smaller batches"):
        run_worker("any", Path("m.onnx"), {})


def test_every_call_is_timed_after_the_warm_up():
    calls = []
    samples = time_calls(lambda: calls.append(1))
    assert len(calls) >= len(samples) + 2
    assert all(sample > 0 for sample in samples)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_memory_is_counted_from_the_reset():
    before = highest_memory(reset=True)
    block = np.ones(50_000_000, np.uint8)
    grown = highest_memory() - before
    assert block.nbytes <= grown + 1_000_000
    del block
    assert highest_memory(reset=True) < before + 25_000_000


# Summaries and verdicts


def turns(*medians):
    return [
        Turn(1_000_000 * k, 2_000_000 * k, k, {(1, 1): [m, 2 * m, 3 * m]}) for k, m in enumerate(medians, 1)
    ]


def test_a_summary_is_over_all_calls_of_all_rounds():
    (record,) = latency_records(turns(1_000_000, 3_000_000))
    assert (record.min_ms, record.p50_ms, record.mean_ms, record.samples) == (1.0, 3.0, 4.0, 6)
    half = t.ppf(0.975, 1) * 2 * np.sqrt(2) / np.sqrt(2)  # means of 2 and 6 ms
    assert record.mean_interval_ms == pytest.approx((4 - half, 4 + half))


def test_loading_is_the_median_over_rounds_and_its_ratio_counts_both_parts():
    loading = Loading.of(turns(1, 1, 1))
    assert loading == Loading(2.0, 4.0, 3)
    assert Loading(3.0, 9.0, None).ratio_to(loading) == 2.0


def test_the_interval_is_students():
    values = [1.0, 1.5, 1.2, 1.3]
    expected = t.interval(0.95, 3, loc=np.mean(values), scale=np.std(values, ddof=1) / 2)
    assert mean_interval(values) == pytest.approx(expected)
    assert mean_interval([1.0]) is None


@given(st.lists(st.floats(0.5, 50), min_size=3, max_size=8), st.floats(0.1, 10))
def test_a_constant_factor_is_found_whatever_the_machine_does(drift, factor):
    baseline = [[speed, 2 * speed, 3 * speed] for speed in drift]
    found = compare_rounds(baseline, [[factor * s for s in r] for r in baseline], batch=1, threads=1)
    assert (found.ratio, found.min_ratio) == pytest.approx((factor, factor))
    assert found.ratio_interval == pytest.approx((factor, factor))
    expected = "faster" if factor < 0.979 else "slower" if factor > 1.021 else None
    assert expected is None or found.verdict == expected


def test_one_disturbed_round_makes_no_verdict():
    baseline = [[1.0]] * 5
    disturbed = [[1.0], [1.01], [0.99], [1.0], [1.6]]
    assert compare_rounds(baseline, disturbed, batch=1, threads=1).verdict == "undecided"
    disturbed[4] = [1.05]
    assert compare_rounds(baseline, disturbed, batch=1, threads=1).verdict == "same"


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        (None, "undecided"),
        ((0.5, 0.9799), "faster"),
        ((0.9, 0.98), "same"),
        ((1.02, 1.11), "same"),
        ((1.0201, 1.5), "slower"),
        ((0.89, 1.0), "undecided"),
        ((1.0, 1.12), "undecided"),
    ],
)
def test_the_rule_at_its_limits(interval, verdict):
    assert verdict_of(interval) == verdict


def test_two_rounds_decide_nothing():
    assert compare_rounds([[2.0]] * 2, [[1.0]] * 2, batch=1, threads=1).verdict == "undecided"


def test_a_feed_of_the_stored_shape_is_the_file(tmp_path):
    path = stored(tmp_path / "scalar.npy", np.float32(3))
    assert Feed("x", "float32", (), str(path)).array() == 3
