"""Early exits from the recipe to the file that leaves early, on digits."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from modelpress.benchmarks.measures.exits import run_parts
from modelpress.benchmarks.report.page import render_report
from modelpress.export.choices import ExitForm
from modelpress.export.errors import InputError, ModelError
from modelpress.export.exits.declaring import with_plan, without_exits
from modelpress.export.exits.plan import Exit, ExitPlan, plan_of
from modelpress.export.exits.thresholds import confidences
from modelpress.export.graphs.conventions import EXITS_METADATA
from modelpress.export.handoff.bundle_files import run as run_py
from modelpress.export.onnx_flavours.leaving_early import leaving_early
from modelpress.export.press.reading import read_artifact
from modelpress.export.quantized import QuantizedModel
from modelpress.toolkit.compression.network_file import load_network
from modelpress.toolkit.compression.passes.train_exits import train_exits
from modelpress.toolkit.compression.run import run_recipe, train_network
from modelpress.toolkit.compression.starting import start
from modelpress.toolkit.model_files.onnx_writing import FlavourRequest, write_flavour
from modelpress.toolkit.progress import Silent
from modelpress.toolkit.recipe import load_recipe
from tests.helpers.training import assert_same, weights_of

OPTIONS = {
    "data.validation": 0.3,
    "model.factory": "tests.helpers.leaving:network",
    "train": {"epochs": 3, "batch": 64, "lr": 0.2, "padding": 0},
    "exits": {"weight": 1.0, "loss": 20.0, "timed": 20, "epochs": 1},
    "prune.sparsity": 0.0,
    "quantize": {"bits": 8, "symmetric": True, "per_channel": True, "layers": {}},
    "finetune.epochs": 0,
    "onnx": ["float", "int8"],
    "bench": {"batch": [1], "threads": [1], "rounds": 1},
    "run.device": "cpu",
}


def recipe_of(**changes):
    return load_recipe(None, {**OPTIONS, **changes})


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a run, and its results."""
    folder = tmp_path_factory.mktemp("exits") / "run"
    with pytest.MonkeyPatch.context() as patch:  # the page has a test of its own
        patch.setattr("modelpress.toolkit.compression.run.write_report", lambda path, results: path.touch())
        return folder, run_recipe(recipe_of(), folder)


def logits_of(model, images):
    """One image at a time: logits, and the exits taken."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = [session.run(None, {"images": image[None]}) for image in images]
    return np.concatenate([logits for logits, _ in found]), np.concatenate([left for _, left in found])


def test_a_run_tells_who_leaves_where(done):
    folder, results = done
    assert [record.path for record in results.exits] == ["model-float-exits.onnx", "model-int8-exits.onnx"]
    for record in results.exits:
        assert [exit.after for exit in record.exits] == ["1", "last"]
        assert sum(exit.share for exit in record.exits) == pytest.approx(1)
        right = sum(exit.share * (exit.top1 or 0.0) for exit in record.exits)
        assert record.top1 == pytest.approx(right)
        assert record.n_timed == 20
        assert (folder / record.path).is_file()
    assert results.exits[0].exits[0].share > 0.1
    full = next(model for model in results.models if model.path == "model-float.onnx")
    assert results.exits[0].baseline_top1 == full.top1
    facts = json.loads((folder / "manifest.json").read_bytes())
    assert facts["history"]["thresholds"]["held_out"] == 431
    assert facts["history"]["thresholds"]["cost"] < 1


def test_whoever_knows_nothing_of_exits_has_the_network_alone(done):
    folder, _ = done
    press = read_artifact(folder / "model.press")
    assert [output.name for output in press.graph.graph.output] == ["logits"]
    assert plan_of(press.graph).used
    plain = onnx.load(folder / "model-float.onnx")
    assert not any("exit" in name for node in plain.graph.node for name in node.output)
    assert EXITS_METADATA not in {entry.key for entry in plain.metadata_props}
    assert len(plain.graph.initializer) < len(press.tensors)


@pytest.mark.parametrize("rule", ["probability", "margin"])
@pytest.mark.parametrize("flavour", ["float", "sparse"])
def test_both_forms_leave_where_the_thresholds_say(done, flavour, rule):
    folder, _ = done
    press = read_artifact(folder / "model.press")
    images = np.random.default_rng(0).standard_normal((40, 3, 32, 32)).astype(np.float32)
    sure = confidences(run_parts(leaving_early(press, flavour=flavour).parts, images)[0], rule)
    plan = ExitPlan((Exit("1", float(np.median(sure))),), rule)
    early = leaving_early(QuantizedModel(with_plan(press.graph, plan), press.tensors), flavour=flavour)
    onnx.checker.check_model(early.one, full_check=True)

    first, last = run_parts(early.parts, images)
    leaves = sure >= plan.used[0].threshold
    clear = np.abs(sure - plan.used[0].threshold) > 1e-5  # of what float32 rounds
    logits, left = logits_of(early.one, images)
    assert (left == ~leaves)[clear].all()
    np.testing.assert_allclose(logits[clear], np.where(leaves[:, None], first, last)[clear], atol=1e-4)
    assert leaves.sum() == 20


def test_beyond_the_exit_nothing_is_in_the_outer_graph(done):
    folder, _ = done
    one = onnx.load(folder / "model-float-exits.onnx")
    convs = [node for node in one.graph.node if node.op_type == "Conv"]
    (choice,) = [node for node in one.graph.node if node.op_type == "If"]
    beyond = next(a.g for a in choice.attribute if a.name == "else_branch")
    assert len(convs) == 4  # of the first stage and its head
    assert [node.op_type for node in beyond.node].count("Conv") == 4
    assert {"Identity", "Constant"} == {
        node.op_type for a in choice.attribute if a.name == "then_branch" for node in a.g.node
    }


def test_stages_are_files_and_none_is_replaced(done, tmp_path):
    press = read_artifact(done[0] / "model.press")
    request = FlavourRequest("float", exits=ExitForm.STAGES)
    facts = write_flavour(tmp_path / "m.onnx", press, request)
    assert [Path(name).name for name in facts["files"]] == ["m-stage1.onnx", "m-stage2.onnx"]
    assert facts["size_bytes"] == sum(path.stat().st_size for path in tmp_path.iterdir())
    with pytest.raises(InputError, match=r"m-stage1\.onnx exists"):
        write_flavour(tmp_path / "m.onnx", press, request)


def test_the_runner_of_a_bundle_leaves_early(done, tmp_path, monkeypatch, capsys):
    folder, _ = done
    contract = {"input_name": "images", "input_shape": [None, 3, 32, 32], "input_dtype": "float32"}
    contract |= {"normalisation": None, "labels": [str(digit) for digit in range(10)]}
    (tmp_path / "manifest.json").write_text(json.dumps({"contract": contract}))
    (tmp_path / "model.onnx").write_bytes((folder / "model-float.onnx").read_bytes())
    (tmp_path / "model-exits.onnx").write_bytes((folder / "model-float-exits.onnx").read_bytes())
    np.save(tmp_path / "x.npy", np.zeros((3, 32, 32), np.float32))
    monkeypatch.setattr(run_py, "HERE", tmp_path)

    answers = []
    for more in ([], ["--full"]):
        assert run_py.main([str(tmp_path / "x.npy"), "--json", *more]) == 0
        answers.append(json.loads(capsys.readouterr().out)[0])
    assert answers[0]["exit"] in ("1", "the last block")
    assert "exit" not in answers[1]


def test_a_bundle_leaves_early_in_the_flavour_of_its_model_and_says_what_is_claimed(done, tmp_path, call):
    folder, _ = done
    code, _, err = call("bundle", folder / "model.press", "--exits", "-o", tmp_path / "b", "--no-zip")
    assert code == 0, err
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["flavour"] == "sparse"
    assert (
        manifest["files"]["model-exits.onnx"]["size_bytes"]
        < 2.0 * manifest["files"]["model.onnx"]["size_bytes"]
    )
    assert "`run.py` leaves early" in (tmp_path / "b" / "MODEL_CARD.md").read_text()


def test_the_report_draws_them(done):
    _, results = done
    page = render_report([results])
    assert "Early exits: model-float-exits.onnx" in page
    assert "Overthinking:" in page
    assert "Accuracy against mean latency" in page


def test_frozen_heads_learn_and_the_network_does_not(tmp_path):
    plain = tmp_path / "plain.safetensors"
    train_network(load_recipe(None, {**OPTIONS, "exits": None, "train.epochs": 1}), plain)
    recipe = recipe_of(**{"model.checkpoint": str(plain), "exits.training": "frozen"})
    state, work = start(recipe, progress=Silent(), outputs={"exits": tmp_path / "exits.safetensors"})
    before = weights_of(state.network)
    trained = train_exits(state, work)
    after = weights_of(trained.network)
    heads = {name for name in after if name.startswith("exits.")}
    assert_same(
        {k: v for k, v in before.items() if k not in heads}, {k: after[k] for k in after.keys() - heads}
    )
    assert not torch.equal(before["exits.heads.1.linear.weight"], after["exits.heads.1.linear.weight"])

    again = load_network(tmp_path / "exits.safetensors", recipe.model)
    assert_same(weights_of(again.network), after)


def test_a_checkpoint_that_may_have_seen_the_held_out_images_is_refused(done):
    folder, _ = done
    checkpoint = str(folder / "dense.safetensors")
    start(recipe_of(**{"model.checkpoint": checkpoint}), progress=Silent())
    more = recipe_of(**{"model.checkpoint": checkpoint, "data.validation": 0.4})
    with pytest.raises(InputError, match=r"575 held-out images, and .*dense\.safetensors left out 431"):
        start(more, progress=Silent())
    start(
        recipe_of(**{"model.checkpoint": checkpoint, "data.validation": 0.4, "exits.unseen": True}),
        progress=Silent(),
    )


def test_other_exits_than_the_checkpoint_has_are_refused(done):
    folder, _ = done
    changes = {"model.checkpoint": str(folder / "dense.safetensors"), "exits.after": ["2"]}
    with pytest.raises(InputError, match="has exits after 1, the recipe asks for 2"):
        start(recipe_of(**changes), progress=Silent())


def test_without_held_out_images_there_are_no_thresholds():
    with pytest.raises(InputError, match=r"data\.validation is 0: set it above 0"):
        recipe_of(**{"data.validation": 0.0})


def test_a_model_without_exits_cannot_leave_early(done):
    folder, _ = done
    press = read_artifact(folder / "model.press")
    with pytest.raises(
        ModelError, match="has no early exits: train it with a recipe that has the section exits"
    ):
        leaving_early(without_exits(press), flavour="float")
