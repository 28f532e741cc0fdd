"""The report: one page or Markdown tables, of one run or several side by side."""

import os
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpress.benchmarks.records import (
    FusionAudit,
    LatencyRecord,
    LayerRecord,
    ModelRecord,
    NodeAudit,
    PairedTest,
    ParityStep,
    ProfileEntry,
    ProfileRecord,
    Results,
    SizeRecord,
    VerdictRecord,
    read_results,
    write_results,
)
from modelpress.benchmarks.report import plots
from modelpress.benchmarks.report.comparison import (
    HEADINGS,
    Run,
    comparison_rows,
    recipe_rows,
    run_names,
    warnings,
)
from modelpress.benchmarks.report.figures import trade_off_figures
from modelpress.benchmarks.report.label_placement import Box, place_boxes
from modelpress.benchmarks.report.page import render_markdown, render_report
from modelpress.benchmarks.report.tables import file_rows
from modelpress.export.errors import InputError
from tests.helpers.command_line import one_line
from tests.helpers.paths import ROOT

EVIL = '<script>alert("$x_1$|")</script>'


def latency(p50, *, batch=1, threads=1):
    return LatencyRecord(
        batch=batch,
        threads=threads,
        p50_ms=p50,
        p90_ms=1.1 * p50,
        p95_ms=1.2 * p50,
        p99_ms=1.3 * p50,
        min_ms=0.9 * p50,
        mean_ms=p50,
        mean_interval_ms=(0.9 * p50, 1.1 * p50),
        images_per_second=1000 * batch / p50,
        samples=100,
        rounds=3,
    )


def verdict(ratio, word):
    return VerdictRecord(
        batch=1,
        threads=1,
        ratio=ratio,
        ratio_interval=(ratio - 0.01, ratio + 0.01),
        min_ratio=ratio,
        rounds=3,
        verdict=word,
    )


def layers():
    coded = LayerRecord(
        name="conv.weight",
        shape=[2, 2, 1, 2],
        weights=8,
        sparsity=0.5,
        bits=2,
        encoding="huffman",
        stored_bytes=20,
        parts={"payload": 12, "tables": 4, "scales": 4},
        bin_edges=[-1, 0, 1],
        bin_counts=[2, 2],
        grid=[-1.0, 0.0, 1.0],
        grid_counts=[2, 0, 2],
    )
    return [coded, LayerRecord(name="fc.weight", shape=[2, 4], weights=8, sparsity=0.0)]


def model(path, n_bytes, *, top1=None, p50=None, **facts):
    return ModelRecord(
        name=path,
        path=path,
        format="press" if path.endswith(".press") else "onnx",
        size_bytes=n_bytes,
        sparsity=facts.pop("sparsity", 0.25),
        top1=top1,
        top1_interval=None if top1 is None else (top1 - 0.01, top1 + 0.01),
        n_images=0 if top1 is None else 1000,
        latency=[] if p50 is None else [latency(p50), latency(8 * p50, batch=8)],
        layers=layers(),
        **facts,
    )


AUDIT = FusionAudit(
    emitted={"Conv": 2, "QuantizeLinear": 1},
    optimised={"QLinearConv": 1, "Conv": 1},
    nodes=[
        NodeAudit(node="first", op="Conv", runs_as="QLinearConv", integer=True),
        NodeAudit(
            node="second",
            op="Conv",
            runs_as="Conv",
            integer=False,
            reason="its output is not quantized",
            remedy="put a QuantizeLinear after it",
        ),
    ],
    summary=["1 of 2 Conv compute on integers"],
)


def full_results(**changes):
    """Everything there can be."""
    dense = model("dense.onnx", 10_000, top1=0.9, p50=1.0, session_ms=5.0, first_inference_ms=1.0)
    packed = model(
        "model.press",
        500,
        top1=0.89,
        p50=1.0,
        verdicts=[verdict(1.0, "same")],
        top5=0.99,
        top5_interval=(0.98, 1.0),
        paired=PairedTest(n_only_baseline=20, n_only_this=10, p_value=0.1),
        session_ms=12.0,
        first_inference_ms=3.0,
        session_ratio=2.5,
        size=SizeRecord(
            payload=400,
            tables=20,
            scales=20,
            headers=10,
            float_tensors=10,
            directory=10,
            graph=20,
            frame=10,
            ladder={"float32": 9000, "as stored": 440},
        ),
    )
    integer = model(
        "int8.onnx",
        3000,
        top1=0.88,
        p50=0.45,
        verdicts=[verdict(0.45, "faster")],
        paired=PairedTest(n_only_baseline=40, n_only_this=10, p_value=0.001),
        peak_memory_bytes=5_000_000,
        audit=AUDIT,
    )
    profile = ProfileRecord(
        name="mlperf-tiny",
        label="not an official MLPerf result",
        n_samples=200,
        batch=1,
        threads=1,
        passes=3,
        images="random numbers",
        models=[ProfileEntry(path="dense.onnx", p50_ms=1, p90_ms=2, inferences_per_second=1000)],
    )
    step = ParityStep(
        reference="model.press",
        candidate="int8.onnx",
        what="weights",
        n_compared=8,
        equal=False,
        largest_difference=0.01,
        first_difference="conv.weight",
        detail="two steps apart",
    )
    facts = {
        "environment": {"cpu": "a processor", "cores": 2, "versions": {"onnxruntime": "1.2.3"}},
        "recipe": {"model": {"arch": "net"}, "data": {"dataset": "set"}, "quantize": {"bits": 2}},
        "dataset": {"name": "set", "test_images": 1000, "fingerprint": "f0"},
        "training": {"finetune": [{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.5}]},
        "models": [dense, packed, integer],
        "profile": profile,
        "parity": [step],
        "notes": ["the machine was busy"],
    }
    return Results(**{**facts, **changes})


def visible(page):
    """The text of a page without its drawings, tags and styles."""
    text = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


@pytest.fixture(scope="module")
def page():
    return render_report([full_results()])


@pytest.mark.parametrize(
    "text",
    [
        "net on set: 25.0 % zeros, 2-bit weights",
        "20.0x",
        "89.00 ± 1.00 %",
        "same −20 +10, p = 0.10",
        "worse −40 +10, p = 1.0e-03",
        "faster 0.45 [0.44, 0.46]",
        "5.0 MB",
        "15.0 ms 2.50x",
        "1.000 ± 0.100",
        "1 of 2 Conv compute on integers",
        "its output is not quantized put a QuantizeLinear after it",
        "weights: 0 of 1 comparisons equal; different are int8.onnx from model.press",
        "two steps apart",
        "not an official MLPerf result",
        "the machine was busy",
        "2 bits; 50.0 % of 8 weights are 0 and not drawn",
        "onnxruntime 1.2.3",
        "arch: net",
    ],
)
def test_the_page_tells(page, text):
    assert text in visible(page)


def test_the_page_needs_no_network_and_no_script(page):
    assert "<script" not in page
    assert not re.search(r"https?://(?!www\.w3\.org/)", page)
    assert not re.search(r"(src|@import|url\((?!#))", re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL))


def test_the_same_results_give_the_same_bytes(page):
    assert page == render_report([full_results()])


def test_every_figure_has_a_text_and_every_heading_a_scope(page):
    assert page.count("<svg") == page.count('role="img" aria-label="')
    assert "<th>" not in page


def test_ids_of_a_figure_are_its_own(page):
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    ids = [set(re.findall(r' id="([^"]*)"', drawing)) for drawing in drawings]
    assert sum(map(len, ids)) == len(set.union(*ids))
    for drawing, own in zip(drawings, ids, strict=True):
        assert own.issuperset(re.findall(r'(?:href="#|url\(#)([^")]*)', drawing))


def test_nothing_that_users_name_becomes_markup():
    results = full_results(notes=[EVIL], recipe={}, environment={EVIL: EVIL}, dataset={"name": EVIL})
    for record in results.models:
        record.path = f"{record.path}{EVIL}"
    results.models[2].audit = FusionAudit(
        emitted={EVIL: 1},
        optimised={EVIL: 1},
        nodes=[NodeAudit(node=EVIL, op=EVIL, runs_as=EVIL, integer=False, reason=EVIL, remedy=EVIL)],
        summary=[EVIL],
    )
    results.models[1].layers[0].name = EVIL
    results.parity[0].detail = EVIL
    page = render_report([results, results], [EVIL, "b"])
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    table = render_markdown([results])
    assert "<script" not in table.partition("\n\n")[2]
    assert all(line.replace("\\|", "").count("|") == 8 for line in table.splitlines() if line.startswith("|"))


def test_a_single_file_without_anything_measured_is_reported():
    page = render_report([Results(environment={}, models=[model("m.onnx", 9, sparsity=None)])])
    assert "Benchmark of m.onnx" in page
    assert "Speed" not in visible(page)


def test_results_of_schema_1_are_reported():
    results = read_results(ROOT / "benchmarks" / "results" / "resnet20-cifar10-penalty.json")
    results.models[1].layers = results.models[1].layers[:2]
    shown = visible(render_report([results]))
    assert "magnitude.press" in shown
    assert "faster" not in shown


def test_files_that_ran_other_batch_sizes_stand_side_by_side():
    fixed = model("fixed.onnx", 10, p50=1.0)
    fixed.latency = [latency(3.0, batch=4)]
    results = Results(environment={}, models=[model("m.onnx", 9, top1=0.9, p50=1.0), fixed])
    assert "fixed.onnx" in render_report([results])
    assert [row["p50"] for row in file_rows(results)] == ["1.00 ms", "–"]
    fixed.top1 = 0.8
    assert [figure.title for figure in trade_off_figures(results)] == ["Accuracy against size"]


@pytest.mark.parametrize(
    "lacking",
    [
        {"recipe": {"a": 1}},
        {"recipe": {"model": "net", "data": None, "quantize": {"bits": 2}}},
        {"training": {"finetune": [{"epoch": 1}, {"epoch": 2, "loss": None}]}},
        {"parameters": {"validation_top1": {"float32": 0.5}}},
        {"parameters": {"validation_top1": ["float32"], "precision": "float32"}},
        {"environment": {"versions": None}},
        {"environment": {"versions": "new"}},
        {"dataset": {"test_images": "many"}},
    ],
    ids=str,
)
def test_parts_that_are_free_in_form_may_lack_anything(lacking):
    bare = model("model.press", 9)
    bare.layers = []
    runs = [Results(**{"environment": {}, "models": [bare], **facts}) for facts in (lacking, {})]
    assert "Benchmark of model.press" in render_report(runs)
    assert "Benchmark of model.press" in render_markdown(runs)


def test_markdown_has_the_columns_of_the_readme():
    lines = render_markdown([full_results()]).splitlines()
    assert lines[2] == "| file | bytes | smaller | zeros | top-1 | p50, batch 1, 1 thread | latency ratio |"
    assert lines[5] == (
        "| model.press | 500 | 20.0x | 25.00 % | 89.00 ± 1.00 % | 1.00 ms | 1.00 [0.99, 1.01] same |"
    )
    plain = Results(environment={}, models=[model("m.onnx", 9, p50=1.0)])
    assert render_markdown([plain]).splitlines()[2].endswith("| p50, batch 1, 1 thread |")


def other_run(**changes):
    results = full_results(**changes)
    results.models[1].size_bytes, results.models[1].top1 = 400, 0.87
    results.models[1].latency = [latency(2.0)]
    return results


def test_runs_are_compared_with_the_first():
    rows = comparison_rows([Run("a", full_results()), Run("b", other_run())])
    assert [row["path"] for row in rows[:2]] == ["a / model.press", "b / model.press"]
    assert [row["bytes_change"] for row in rows[:2]] == ["–", "-100 (-20.0 %)"]
    assert [row["top1_change"] for row in rows[:2]] == ["–", "-2.00"]
    assert [row["latency_ratio"] for row in rows[:2]] == ["–", "2.00"]
    assert rows[1]["own_ratio"] == "1.00 [0.99, 1.01] same"
    assert [row["path"] for row in rows[2:]] == [
        "a / dense.onnx",
        "b / dense.onnx",
        "a / int8.onnx",
        "b / int8.onnx",
    ]
    assert HEADINGS.keys() <= rows[0].keys()


def test_latencies_of_different_machines_are_said_not_to_compare():
    here = full_results()
    there = other_run(environment={**here.environment, "cpu": "another", "versions": {"onnxruntime": "2"}})
    (warning,) = warnings([Run("a", here), Run("b", there)])
    assert "not comparable, for they differ in cpu, onnxruntime" in warning
    (warning,) = warnings([Run("a", here), Run("b", other_run())])
    assert "one after the other" in warning


def test_what_older_results_do_not_record_is_no_difference():
    here = full_results()
    newer = full_results(environment={**here.environment, "physical_cores": 2})
    assert "one after the other" in warnings([Run("a", here), Run("b", newer)])[0]


def test_accuracies_on_other_images_are_said_not_to_compare():
    there = other_run(dataset={"name": "set", "fingerprint": "f1"})
    assert any("different images" in text for text in warnings([Run("a", full_results()), Run("b", there)]))


def test_recipe_keys_that_differ_are_listed_as_set_takes_them():
    recipe = {"model": {"arch": "net"}, "data": {"dataset": "set"}, "quantize": {"bits": 4}, "seed": 1}
    rows = recipe_rows([Run("a", full_results()), Run("b", full_results(recipe=recipe))])
    assert rows == [{"key": "quantize.bits", "0": "2", "1": "4"}, {"key": "seed", "0": "–", "1": "1"}]
    assert recipe_rows([Run("a", full_results()), Run("b", full_results(recipe={}))]) == []


def test_several_runs_make_one_page_and_one_table():
    page = render_report([full_results(), other_run()], ["a", "b"])
    assert "2 runs side by side" in page
    assert page.count("<article") == 2
    table = render_markdown([full_results(), other_run()], ["a", "b"])
    assert "| b / model.press | 400 | -100 (-20.0 %) |" in table
    assert "b: net on set" in table


def test_runs_are_named_by_what_tells_them_apart(tmp_path):
    a, b = tmp_path / "a" / "results.json", tmp_path / "b" / "results.json"
    assert run_names([a, b]) == ["a", "b"]
    assert run_names([a, a.with_name("more.json")]) == ["results", "more"]
    twin = tmp_path / "x" / "a" / "results.json"
    assert run_names([a, twin]) == [f"{tmp_path.name}/a/results.json", "x/a/results.json"]  # no whole paths
    with pytest.raises(InputError, match="given twice"):
        run_names([a, a.parent / ".." / "a" / "results.json"])


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_links_in_a_circle_have_a_name(tmp_path):
    (tmp_path / "a.json").symlink_to("b.json")
    (tmp_path / "b.json").symlink_to("a.json")
    assert len(set(run_names([tmp_path / "a.json", tmp_path / "b.json"]))) == 2


def test_the_command_compares_runs(tmp_path, call):
    for name, results in (("a", full_results()), ("b", other_run())):
        (tmp_path / name).mkdir()
        write_results(tmp_path / name / "results.json", results)
    files = [tmp_path / name / "results.json" for name in "ab"]
    assert call("report", *files, "-o", tmp_path / "table.md")[0] == 0
    assert "2 runs beside a" in (tmp_path / "table.md").read_text()
    code, _, err = call("report", files[0], files[0], "-o", tmp_path / "twice.md")
    assert code == 1
    assert "given twice" in one_line(err)


def test_a_figure_alone_is_a_file_and_needs_two_accuracies(tmp_path, call):
    write_results(tmp_path / "results.json", full_results())
    figure = tmp_path / "accuracy.svg"
    assert call("report", tmp_path / "results.json", "-o", figure)[0] == 0
    root = ElementTree.fromstring(figure.read_text())
    assert root.tag.endswith("svg")

    write_results(tmp_path / "sizes.json", Results(environment={}, models=[model("a.onnx", 10)]))
    code, _, err = call("report", tmp_path / "sizes.json", "-o", tmp_path / "none.svg")
    assert code == 1
    assert "0 of the files have a top-1 accuracy; a figure needs two" in one_line(err)
    assert not (tmp_path / "none.svg").exists()


def test_names_are_drawn_as_they_stand():
    names = ("$\\frac{$", "a_b$c^2$", "_hidden", "two\nlines", "x" * 200)
    assert "<svg" in plots.file_sizes([model(name, 10) for name in names])


def test_many_files_are_numbered_and_few_are_named():
    few = Results(environment={}, models=[model(f"{k}.onnx", 10 + k, top1=0.9) for k in range(3)])
    assert [figure.key for figure in trade_off_figures(few)] == [()]
    many = Results(environment={}, models=[model(f"{k}.onnx", 10 + k, top1=0.9) for k in range(12)])
    assert len(next(trade_off_figures(many)).key) == 12


@given(
    st.lists(st.tuples(st.integers(60, 440), st.integers(60, 240)), min_size=1, max_size=6, unique=True),
    st.integers(10, 60),
)
def test_labels_cover_neither_each_other_nor_the_edge(points, width):
    area = Box(0, 0, 500, 300)
    centres = place_boxes(points, [(width, 10.0)] * len(points), area)
    boxes = [Box(x - width / 2, y - 5, x + width / 2, y + 5) for x, y in centres]
    assert all(box.inside(area) for box in boxes)
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


@pytest.mark.parametrize(
    ("bits", "told"),
    [((None, None), "float"), ((2, None), "2-bit"), ((3, 5), "3- to 5-bit"), ((4, 4), "4-bit")],
)
def test_the_title_says_how_wide_weights_are_in_the_file(bits, told):
    results = full_results()
    packed = next(model for model in results.models if model.format == "press")
    packed.layers = [
        packed.layers[0].model_copy(update={"bits": width, "name": f"layer {k}"})
        for k, width in enumerate(bits)
    ]
    assert f"25.0 % zeros, {told} weights" in visible(render_report([results]))


def test_labels_of_a_short_logarithmic_axis_do_not_touch():
    points = [plots.Point(str(size), size, 0.9) for size in (167_922, 499_836, 1_093_000)]
    drawn = plots.accuracy_against(points, "bytes", logarithmic=True)
    assert "<!-- 200,000 -->" in drawn
    assert "<!-- 300,000 -->" not in drawn


def test_labels_of_a_long_logarithmic_axis_do_not_touch():
    drawn = plots.size_ladder({"float32": 1_531_072, "as stored": 348_640, "linked contexts": 335_458})
    shown = [
        label
        for label in ("200,000", "300,000", "1,000,000", "2,000,000", "3,000,000")
        if f"<!-- {label} -->" in drawn
    ]
    assert shown == ["300,000", "1,000,000", "3,000,000"]


def test_logarithmic_axes_are_labelled_in_plain_numbers():
    drawn = plots.size_ladder({"float32": 1_079_296, "as stored": 58_512})
    assert "<!-- 100,000 -->" in drawn
    assert "<!-- 1,000,000 -->" in drawn
    assert "mathdefault" not in drawn


def test_a_ladder_names_its_forms_in_full():
    drawn = plots.size_ladder({"bound: entropy of gaps and levels": 54_755, "as stored": 54_123})
    assert "bound: entropy of gaps and levels -->" in drawn
