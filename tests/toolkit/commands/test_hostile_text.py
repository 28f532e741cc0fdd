"""Names and metadata of a model from anywhere, in everything that commands write and print."""

import re

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from modelpress.benchmarks.records import read_results, write_results
from modelpress.toolkit.commands.bundle import claims as bundle_claims

EVIL = "\x1b[31m\r\n# <script>alert(1)</script> [x](javascript:y) `$\\frac"
WEIGHT = "w\x1b[31m"


def model_of(weight_name):
    """A model with hostile metadata."""
    weight = np.random.default_rng(0).standard_normal((128, 16)).astype(np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", weight_name], ["y"])],
        "g\x1b[31m",
        [value("x", 1, ["n", 128])],
        [value("y", 1, ["n", 16])],
        [numpy_helper.from_array(weight, weight_name)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key in ("modelpress.arch", "modelpress.prune", EVIL):
        model.metadata_props.add(key=key, value=EVIL)
    return model


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """An ONNX file with hostile metadata."""
    monkeypatch.setattr(bundle_claims, "ROUNDS", 1)
    onnx.save(model_of("w"), tmp_path / "evil.onnx")
    return tmp_path / "evil.onnx"


def obeyed(text):
    """What a terminal would obey."""
    return re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


def test_nothing_hostile_reaches_the_terminal(hostile, call):
    press = hostile.with_suffix(".press")
    onnx.save(model_of(WEIGHT), hostile.with_name("named.onnx"))
    for expected, *arguments in (
        (0, "pack", hostile, "-o", press),
        (0, "inspect", press),
        (0, "inspect", press, "--wide"),
        (0, "verify", press, "--against", hostile),
        (0, "bench", "size", press),
        (0, "onnx", press, "-o", hostile.with_name("x.onnx")),
        (0, "unpack", press, "-o", hostile.with_name("x.npz")),
        (0, "bundle", press, "-o", hostile.with_name("handoff"), "--no-zip"),
        (0, "verify", hostile.with_name("handoff")),
        (1, "pack", hostile.with_name("named.onnx"), "-o", press, "--overwrite"),
        (1, "pack", hostile.with_name("no\x1b[31m.onnx")),
        (1, "-v", "pack", hostile.with_name("no\x1b[31m.onnx")),
    ):
        code, out, err = call(*arguments)
        assert code == expected, arguments
        assert not obeyed(out + err), arguments


def test_nothing_hostile_is_markup_in_the_model_card(hostile, call):
    press, target = hostile.with_suffix(".press"), hostile.with_name("handoff")
    assert call("pack", hostile, "-o", press)[0] == 0
    code, _, err = call("bundle", press, "-o", target, "--no-zip", "--license", EVIL)
    assert code == 0, err
    card = (target / "MODEL_CARD.md").read_text()
    assert not obeyed(card)
    outside_code = re.sub(r"(`+) .*? \1", "", card)
    assert "<script" not in outside_code
    assert "](" not in outside_code.replace("\\](", "")
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert len(headings) == 6
    assert all(re.fullmatch(r"#+ [A-Za-z ]+", line) for line in headings)


def test_nothing_hostile_is_markup_in_reports(hostile, call, tmp_path):
    assert (
        call("bench", hostile, "--batch", "1", "--threads", "1", "--rounds", "1", "-o", tmp_path / "r.json")[
            0
        ]
        == 0
    )
    results = read_results(tmp_path / "r.json")
    results.models[0].path = results.models[0].name = EVIL
    results.notes.append(EVIL)
    results.environment["cpu"] = EVIL
    results.recipe["model"] = {"arch": EVIL}
    write_results(tmp_path / "r.json", results)
    for name in ("report.md", "report.html"):
        code, _, err = call("report", tmp_path / "r.json", "-o", tmp_path / name)
        assert code == 0, err
        text = (tmp_path / name).read_text()
        assert not obeyed(text)
        assert "<script>alert" not in text
        assert name.endswith("html") or not re.search(r"^# ", text, re.MULTILINE)
        assert name.endswith("html") or "](javascript" not in text.replace("\\](", "")


def test_labels_from_a_bundle_steer_no_terminal(capsys):
    from modelpress.export.handoff.bundle_files import run, verify

    run.show({"image": EVIL, "top": [{"probability": 1.0, "label": EVIL}]})
    print(verify.Finding(EVIL, True, EVIL))
    assert not obeyed(capsys.readouterr().out)
