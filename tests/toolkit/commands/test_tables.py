"""Tables fit the terminal, and nothing of them is cut where a program reads them."""

import numpy as np
import pytest
from rich.cells import cell_len

from modelpress.benchmarks.records import read_results
from modelpress.export.press.writing import write_artifact
from modelpress.export.quantized import QuantizedTensor
from modelpress.toolkit.commands.bench.archives import show_archives
from modelpress.toolkit.commands.bench.codes import ladder_of, show_ladder, show_scaling
from modelpress.toolkit.commands.bench.runtime import show_capabilities, show_versions
from modelpress.toolkit.commands.bench.tables import show_bench, show_files
from modelpress.toolkit.commands.table_layout import lay_out, shortened
from modelpress.toolkit.progress import Silent
from tests.helpers.graph_builder import INPUT, GraphBuilder
from tests.helpers.paths import ROOT

RESULTS = sorted((ROOT / "benchmarks" / "results").glob("resnet20-*.json"))
LAYER = "body_op.0.conv1.0.conv.with.a.long.name.that.nobody.would.give"


@pytest.fixture
def press(tmp_path):
    codes = np.random.default_rng(0).integers(-7, 8, (64, 64, 3, 3)).astype(np.int8)
    builder = GraphBuilder("long names", (64, 6, 6))
    weight = QuantizedTensor(codes, bits=4, scale=np.float32(0.1))
    x = builder.conv(LAYER, INPUT, weight, np.zeros(64, np.float32), stride=1, padding=1)
    x = builder.flatten(builder.global_average_pool(x))
    write_artifact(tmp_path / "m.press", builder.finish(x, n_outputs=64, metadata={}))
    return tmp_path / "m.press"


def table_lines(out):
    """What lies between a rule and the next empty line, and the heading above the rule."""
    lines = out.splitlines()
    for k, line in enumerate(lines):
        if line and not line.strip("─"):
            yield lines[k - 1]
            yield from lines[k : lines.index("", k)]


@pytest.fixture
def at_width(monkeypatch, capsys):
    def show(width, function, *arguments, **options):
        monkeypatch.setenv("COLUMNS", str(width))
        function(*arguments, **options)
        return capsys.readouterr().out

    return show


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("show", [show_bench, show_files])
def test_what_bench_and_run_print_takes_a_line_a_file_at_80_columns(at_width, path, show):
    results = read_results(path)
    lines = list(table_lines(at_width(80, show, results)))
    assert len(lines) >= 2 + len(results.models)
    assert max(map(cell_len, lines)) <= 80


def test_the_files_keep_name_bytes_sparsity_and_accuracy_at_80_columns(at_width):
    out = at_width(80, show_files, read_results(ROOT / "benchmarks/results/resnet20-cifar10-flavours.json"))
    assert "Latency: p50, batch 1, 1 thread" in out
    row = next(line for line in out.splitlines() if line.startswith("s70-w4-int8-sparse.onnx"))
    assert row.split() == [
        "s70-w4-int8-sparse.onnx",
        *("96,150", "11.4x", "69.34", "%", "91.26", "%", "0.33", "ms", "faster"),
    ]


@pytest.mark.parametrize("width", [80, 100, 200])
def test_inspect_shows_name_bits_sparsity_and_bytes_and_fits(call, monkeypatch, press, width):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = call("inspect", press)
    assert code == 0
    heading, _, row, *_ = table_lines(out)
    assert {"name", "bits", "sparsity", "bytes"} <= set(heading.split())
    assert row.startswith("body_op.0")
    assert max(map(cell_len, table_lines(out))) <= width
    assert ("payload" in heading) == (width == 200)


def test_wide_shows_all_columns_uncut(call, monkeypatch, press):
    monkeypatch.setenv("COLUMNS", "80")
    narrow, note = call("inspect", press)[1:]
    assert (
        "--wide shows more: shape, a weight, encoding, header, scales, tables, payload, entropy"
        in " ".join(note.split())
    )
    wide, note = call("inspect", press, "--wide")[1:]
    assert f"{LAYER}.weight" in wide
    assert f"{LAYER}.weight" not in narrow
    assert "payload" in wide
    assert note == ""


def test_the_other_tables_of_bench_fit_80_columns(at_width, press):
    point = {"direction": "encode", "n_weights": 100_000_000, "seconds": 12.34, "effort": "default"}
    point |= {"nanoseconds_per_weight": 123.4, "extra_mb": 1234.0, "size_bytes": 100_000_000}
    capability = {"name": "4-bit integers, DequantizeLinear by blocks", "opset": 21, "since": "1.20"}
    capability |= {
        "right": True,
        "folded": False,
        "used_by": ["weight-only"],
        "instead": "",
        "as_expected": True,
    }
    archive = {
        "file": "efficientnet_b0_with_a_long_name.onnx",
        "original": 100_000_000,
        "artifact": 90_000_000,
    }
    archive |= {"zstandard": None, "xz": 91_000_000}
    check = {"version": "1.15.1", "file": "model-int8-sparse.onnx", "label_agreement": 0.995}
    check |= {"differing_labels": 3, "largest_difference": 0.01, "error": "x" * 200}
    shown = [
        (show_ladder, ladder_of(press, Silent())),
        (show_scaling, {"points": [point]}),
        (show_archives, {"effort": "default", "files": [archive]}),
        (show_capabilities, {"onnxruntime": "1.23.0", "capabilities": [capability]}),
        (show_versions, {"reference": "1.23.0", "inputs": 256, "checks": [check]}),
    ]
    for show, facts in shown:
        lines = list(table_lines(at_width(80, show, facts)))
        assert lines
        assert max(map(cell_len, lines)) <= 80, show.__name__


@pytest.mark.parametrize("name", ["a" * 300, "層" * 100, "é" * 100])
def test_names_are_shortened_in_the_middle_to_the_columns_they_take(name):
    for width in (12, 13, 40):
        short = shortened(name, width)
        assert cell_len(short) <= width
        assert "…" in short


def test_no_name_moves_the_cursor_or_takes_two_lines():
    layout = lay_out([{"name": "a\nb\x1b[2J", "n": "1"}], [{"name": "name", "n": "n"}], width=80)
    assert layout.lines[1].split() == [r"a\nb\x1b[2J", "1"]
