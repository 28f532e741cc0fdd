"""The studies of pruning and quantization: their rows by name, their runs on a few digits."""

import csv
import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image

from modelpress.benchmarks.subjects.model_file import open_model
from modelpress.export.errors import InputError
from modelpress.toolkit.compression.network_file import load_network, new_network, save_network
from modelpress.toolkit.compression.passes.prune import pruned_by_magnitude
from modelpress.toolkit.compression.passes.quantize import with_quantizers
from modelpress.toolkit.compression.pruning.magnitude import prune_global
from modelpress.toolkit.compression.pruning.removal import prunable_layers
from modelpress.toolkit.compression.state import InputContract, NetworkState
from modelpress.toolkit.data.digits import load_digits
from modelpress.toolkit.data.registry import load_data_set
from modelpress.toolkit.networks.layers import weight_layers
from modelpress.toolkit.output_folder import file_facts
from modelpress.toolkit.recipe import ModelOptions, Recipe
from modelpress.toolkit.studies.published.figures import accuracy_by_bits, accuracy_by_sparsity
from modelpress.toolkit.studies.published.rows import ROWS, choose_rows
from modelpress.toolkit.studies.published.run_row import RowRecord, finished_row, run_row
from modelpress.toolkit.studies.published.study import plan_study
from tests.helpers.command_line import modelpress, one_line
from tests.helpers.options import with_options
from tests.helpers.training import SignalAt

PUBLISHED = {
    "dense": 91.51,
    "one-shot-30": 90.28,
    "one-shot-50": 82.10,
    "one-shot-70": 42.04,
    "finetuned-70": 89.28,
    "iterative-70": 89.09,
    "iterative-global-70": 89.72,
    "asymmetric-6": 91.45,
    "asymmetric-5": 91.12,
    "asymmetric-4": 89.72,
    "asymmetric-3": 76.62,
    "asymmetric-2": 8.99,
    "symmetric-6": 91.24,
    "symmetric-5": 90.83,
    "symmetric-4": 88.75,
    "symmetric-3": 51.85,
    "symmetric-2": 10.00,
    "finetuned-4": 91.36,
    "finetuned-3": 90.49,
    "finetuned-2": 85.87,
    "pruned-4": 87.22,
    "pruned-3": 63.31,
    "pruned-2": 10.00,
    "pruned-finetuned-4": 90.31,
    "pruned-finetuned-3": 88.46,
    "pruned-finetuned-2": 37.78,
}
TO_BEAT = {  # our own rows and the published ones beside which they stand
    "improved-70": "iterative-global-70",
    "improved-post-training-6": "asymmetric-6",
    "improved-post-training-5": "asymmetric-5",
    "improved-post-training-4": "asymmetric-4",
    "improved-post-training-3": "asymmetric-3",
    "improved-4": "finetuned-4",
    "improved-3": "finetuned-3",
    "improved-2": "finetuned-2",
    "improved-s70-w4": "pruned-finetuned-4",
    "improved-s70-w3": "pruned-finetuned-3",
    "improved-s70-w2": "pruned-finetuned-2",
    "improved-s90-w4": None,
}
BASE = Recipe.model_validate({"model": {"checkpoint": "dense.pt"}, "run": {"device": "cpu"}})


def named(names):
    return [ROWS[name] for name in names]


def recipe_of(name, base=BASE):
    return ROWS[name].recipe(base)


# the rows


def test_every_published_figure_is_in_its_row():
    published = {name: row for name, row in ROWS.items() if row.study != "frontier"}
    assert {name: row.published for name, row in published.items() if name not in TO_BEAT} == PUBLISHED


def test_own_rows_stand_beside_the_figure_that_they_should_beat():
    for name, other in TO_BEAT.items():
        assert ROWS[name].published == (None if other is None else PUBLISHED[other])


def test_studies_and_kinds():
    pruning = {name for name, row in ROWS.items() if row.study == "prune"}
    assert pruning == {*list(PUBLISHED)[:7], "improved-70"}
    trained = {name for name, row in ROWS.items() if row.recipe(BASE).finetune.epochs}
    assert trained == {name for name, row in ROWS.items() if row.kind != "post-training"}
    reference = {row.name for row in ROWS.values() if row.kind == "reference"}
    assert reference == {
        name for name in PUBLISHED if name.startswith(("finetuned", "iterative", "pruned-f"))
    }


def test_rows_of_the_frontier_train_alike_but_for_what_they_compare():
    rows = [row.recipe(BASE) for row in ROWS.values() if row.kind in {"priced", "fixed", "matched"}]
    same = [r.finetune.model_dump(exclude={"target_bytes", "rate", "rate_ramp"}) for r in rows]
    assert all(options == same[0] for options in same)
    assert {r.pack.effort for r in rows} == {"max"}
    sizes = {(r.finetune.target_bytes, r.seed) for r in rows if r.finetune.priced}
    assert len(sizes) == 15
    assert recipe_of("start").finetune.epochs == 0


@pytest.mark.parametrize("name", [row.name for row in ROWS.values() if row.kind == "reference"])
def test_published_trainings_have_the_published_hyper_parameters(name):
    recipe = recipe_of(name)
    chosen = {
        "epochs": 20,
        "batch": 256,
        "lr": 0.002,
        "schedule": "constant",
        "warmup": 0.0,
        "momentum": 0.875,
        "nesterov": False,
        "weight_decay": 1e-4,
        "padding": 4,
        "label_smoothing": 0.0,
        "distill_weight": 0.0,
        "average": 0.0,
    }
    options = recipe.finetune.model_dump()
    assert {key: options[key] for key in chosen} == chosen
    assert recipe.data.validation == 0  # all images are trained on
    assert not recipe.pack.float16_parameters


@pytest.mark.parametrize("name", [name for name in PUBLISHED if ROWS[name].study == "prune"])
def test_published_pruning_leaves_projections_dense_and_quantizes_nothing(name):
    recipe = recipe_of(name)
    state = NetworkState(new_network(recipe.model, seed=0), recipe.model)
    prunable = prunable_layers(state, recipe.prune)
    assert len(prunable) == 20
    assert sum(weight.numel() for weight in prunable.values()) == 268_336
    assert not with_quantizers(state, recipe.quantize).quantizers


@pytest.mark.parametrize("name", [name for name in PUBLISHED if ROWS[name].study == "quantize"])
def test_published_quantization_is_that_of_the_inner_layers(name):
    recipe = recipe_of(name)
    state = NetworkState(new_network(recipe.model, seed=0), recipe.model)
    quantizers = with_quantizers(state, recipe.quantize).quantizers
    layers = list(weight_layers(state.network))
    assert list(quantizers) == layers[1:-1]  # the projections too
    assert any("id_mapping" in layer for layer in quantizers)
    assert {spec.bits for spec in quantizers.values()} == {int(name[-1])}
    assert {spec.symmetric for spec in quantizers.values()} == {name.startswith("symmetric")}
    assert not any(spec.per_channel or spec.learned or spec.range == "mse" for spec in quantizers.values())
    assert not pruned_by_magnitude(state, recipe.prune).masks


def test_published_pruning_schedules():
    for name, share in (
        ("one-shot-30", 0.3),
        ("one-shot-50", 0.5),
        ("one-shot-70", 0.7),
        ("finetuned-70", 0.7),
    ):
        prune = recipe_of(name).prune
        assert (prune.method, prune.schedule, prune.sparsity) == ("layer-percentile", "one-shot", share)
    for name, method in (("iterative-70", "layer-percentile"), ("iterative-global-70", "global-magnitude")):
        prune = recipe_of(name).prune
        assert (prune.method, prune.schedule, prune.sparsity) == (method, "linear", 0.7)
        assert (prune.epochs, prune.updates_per_epoch, prune.hold) == (10, 1, False)


def test_of_the_recipe_only_data_model_seed_and_run_count():
    base = Recipe.model_validate(
        {
            "seed": 7,
            "data": {"dataset": "cifar10", "dir": "there"},
            "model": {"arch": "resnet32", "checkpoint": "c.pt"},
            "run": {"device": "cpu", "bf16": False},
            "finetune": {"epochs": 3, "label_smoothing": 0.1},
            "prune": {"sparsity": 0.1, "granularity": "channel"},
            "quantize": {"bits": 7, "per_channel": True},
        }
    )
    for row in ROWS.values():
        recipe, usual = row.recipe(base), row.recipe(BASE)
        assert (recipe.seed, recipe.model, recipe.run) == (base.seed + row.more_seed, base.model, base.run)
        assert (recipe.data.dataset, recipe.data.dir) == ("cifar10", "there")
        assert recipe.data.validation == usual.data.validation
        for section in ("prune", "finetune", "quantize", "pack"):
            assert getattr(recipe, section) == getattr(usual, section)


@pytest.mark.parametrize(
    ("study", "wanted", "expected"),
    [
        ("prune", ["one-shot-50"], ["one-shot-50"]),
        ("prune", ["one-shot-*", "dense"], ["dense", "one-shot-30", "one-shot-50", "one-shot-70"]),
        ("prune", ["improved", "reference"], [*list(PUBLISHED)[4:7], "improved-70"]),
        ("quantize", ["symmetric-[34]"], ["symmetric-4", "symmetric-3"]),
        ("quantize", ["pruned-2"], ["iterative-global-70", "pruned-2"]),
        ("quantize", ["pruned-3", "asymmetric-6"], ["iterative-global-70", "asymmetric-6", "pruned-3"]),
        ("quantize", ["pruned-3", "pruned-3"], ["iterative-global-70", "pruned-3"]),
        ("frontier", ["as-large-as-fixed-s80-w2"], ["fixed-s80-w2", "as-large-as-fixed-s80-w2"]),
    ],
)
def test_rows_are_chosen_in_order_after_those_that_they_need(study, wanted, expected):
    assert choose_rows(study, wanted) == named(expected)


def test_post_training_trains_nothing():
    for study in ("prune", "quantize"):
        rows = choose_rows(study, ["post-training"])
        assert rows
        assert all(row.kind == "post-training" and row.start is None for row in rows)


def test_all_rows():
    assert choose_rows("prune", ["all"]) == [row for row in ROWS.values() if row.study == "prune"]
    rest = [row for row in ROWS.values() if row.study == "quantize"]
    assert choose_rows("quantize", ["all"]) == [ROWS["iterative-global-70"], *rest]


@pytest.mark.parametrize("study", ["prune", "quantize"])
@pytest.mark.parametrize("text", ["nonsense", "Dense", "", "one-shot", "*-9"])
def test_unknown_rows_are_refused_by_naming_the_known_ones(study, text):
    with pytest.raises(
        InputError, match=r"fits no row; rows are .*improved.*; kinds are post-training"
    ) as caught:
        choose_rows(study, [text])
    for row in ROWS.values():
        assert (f" {row.name}," in str(caught.value)) or row.study != study or row.name in str(caught.value)


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 20, 40])
def test_schedules_follow_the_epochs_in_proportion(epochs, tmp_path):
    for study in ("prune", "quantize"):
        for row, recipe in plan_study(study, ["all"], BASE, tmp_path, epochs=epochs).rows:
            usual = row.recipe(BASE)
            trained = row.kind != "post-training"
            assert recipe.finetune.epochs == (epochs if trained else 0)
            if trained and recipe.prune.scheduled:
                assert recipe.prune.epochs == max(1, round(usual.prune.epochs * epochs / 20))
            assert recipe.quantize.after < max(epochs, 1)
            if epochs == 20:
                assert recipe == usual


# runs on a few digits

DIGITS = load_digits()
TINY = replace(
    DIGITS, train=DIGITS.train.take(np.arange(100)), test=DIGITS.test.take(np.arange(40))
)  # one step per epoch
RECIPE = "data:\n  dataset: digits\nrun:\n  device: cpu\n"
TRAINED = "pruned-finetuned-3,improved-3"
FINISHED = ["iterative-global-70", "asymmetric-4", "symmetric-2", "pruned-finetuned-3", "improved-3"]


def few_images(name, **options):
    return TINY if name == "digits" else load_data_set(name, **options)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr("modelpress.toolkit.compression.starting.load_data_set", few_images)


@pytest.fixture
def ran(tiny, monkeypatch):
    """Names of the rows that were run, not taken from an earlier run."""
    names = []

    def spy(row, *arguments, **options):
        names.append(row.name)
        return run_row(row, *arguments, **options)

    monkeypatch.setattr("modelpress.toolkit.studies.published.study.run_row", spy)
    return names


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A recipe and an untrained network."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "recipe.yaml").write_text(RECIPE)
    state = NetworkState(
        new_network(ModelOptions(), seed=0), ModelOptions(), contract=InputContract.of(DIGITS)
    )
    save_network(folder / "dense.safetensors", state)
    torch.save(state.network.state_dict(), folder / "dense.pt")
    masks = prune_global(weight_layers(state.network), sparsity=0.5)
    save_network(folder / "pruned.safetensors", replace(state, masks=masks))
    return folder


def command(study, rows, inputs, output, *more):
    given = ("-c", inputs / "recipe.yaml", "--checkpoint", inputs / "dense.safetensors", "--rows", rows)
    return ("study", study, *given, "-o", output, *more)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, inputs):
    folder = tmp_path_factory.mktemp("study") / "out"
    rows = f"asymmetric-4,symmetric-2,{TRAINED}"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("modelpress.toolkit.compression.starting.load_data_set", few_images)
        assert modelpress(monkeypatch, *command("quantize", rows, inputs, folder, "--epochs", 1)) == 0
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "out")


def record_of(folder, row):
    return json.loads((folder / "rows" / row / "row.json").read_text())


def stamps(folder):
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("rows/*/row.json")}


def test_a_study_writes_tables_and_figures(finished):
    assert {path.name for path in finished.iterdir()} == {
        "rows",
        *(f"quantize.{kind}" for kind in ("json", "csv", "md", "png", "svg")),
    }
    record = json.loads((finished / "quantize.json").read_text())
    assert (record["kind"], record["schema_version"]) == ("quantization-study", 1)
    assert [row["name"] for row in record["rows"]] == FINISHED
    own = [row.name for row in ROWS.values() if row.study == "quantize"]
    assert record["not_run"] == [name for name in own if name not in FINISHED]
    table = list(csv.DictReader((finished / "quantize.csv").read_text().splitlines()))
    assert [row["name"] for row in table] == FINISHED
    assert [float(row["top1"]) for row in table] == [row["top1"] for row in record["rows"]]
    lines = (finished / "quantize.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {name}" for name in FINISHED]
    assert "<svg" in (finished / "quantize.svg").read_text()
    with Image.open(finished / "quantize.png") as image:
        assert image.convert("L").getextrema()[0] < 150


def test_a_row_is_what_was_measured(finished):
    for name in FINISHED:
        folder, record = finished / "rows" / name, record_of(finished, name)
        assert {path.name for path in folder.iterdir()} == {
            "checkpoint.safetensors",
            "model.press",
            "row.json",
        }
        assert record["size_bytes"] == (folder / "model.press").stat().st_size
        assert record["n_images"] == 40
        assert record["top1_interval"][0] <= record["top1"] <= record["top1_interval"][1]
        assert len(record["layers"]) == 20
        assert record["dataset"] == TINY.fingerprint()
        trained = ROWS[name].kind != "post-training"
        assert record["epochs"] == len(record["training"]) == int(trained)
        assert (record["images_per_second"] is not None) == trained


def test_published_figures_belong_to_cifar10_alone(finished):
    for row in json.loads((finished / "quantize.json").read_text())["rows"]:
        assert row["published"] is row["difference"] is None


def test_on_cifar10_rows_have_their_published_figure(inputs, tmp_path, monkeypatch, call):
    monkeypatch.setattr(
        "modelpress.toolkit.compression.starting.load_data_set",
        lambda name, **_: replace(TINY, name="cifar10"),
    )
    foreign = ("-c", inputs / "recipe.yaml", "--checkpoint", inputs / "dense.pt", "--rows", "one-shot-50")
    code, out, err = call("study", "prune", *foreign, "-o", tmp_path / "o", "--json")
    assert code == 0, err
    (row,) = json.loads(out)["rows"]
    assert row["published"] == 82.10
    assert row["difference"] == pytest.approx(100 * row["top1"] - 82.10)
    assert f"{row['difference']:+.2f}" in err
    assert row["sparsity"] == pytest.approx(0.5, abs=1e-4)
    packed = open_model(tmp_path / "o" / "rows" / "one-shot-50" / "model.press").onnx_model
    # the file says what it expects although the checkpoint did not
    assert {entry.key: entry.value for entry in packed.metadata_props}["modelpress.dataset"] == "cifar10"


def test_a_row_starts_from_the_network_of_another(finished):
    start = finished / "rows" / "iterative-global-70" / "checkpoint.safetensors"
    record = record_of(finished, "pruned-finetuned-3")
    assert record["source"] == file_facts(start)["sha256"]
    assert record["sparsity_before"] == pytest.approx(0.7, abs=1e-5)
    pruned = load_network(start, ModelOptions())
    end = load_network(finished / "rows" / "pruned-finetuned-3" / "checkpoint.safetensors", ModelOptions())
    assert sum(int((~mask).sum()) for mask in pruned.masks.values()) == round(0.7 * 268_336)
    for name, mask in pruned.masks.items():
        assert not weight_layers(end.network)[name][~mask].any()
    assert {spec.bits for spec in end.quantizers.values()} == {3}


def test_rows_measured_before_are_taken_as_they_are(copied, inputs, ran, call):
    before = stamps(copied)
    rows = f"{TRAINED},asymmetric-4,symmetric-2"
    code, out, err = call(*command("quantize", rows, inputs, copied, "--epochs", 1, "--json"))
    assert code == 0, err
    assert "measured before" in err
    assert (ran, stamps(copied)) == ([], before)
    assert json.loads(out)["rows"] == json.loads((copied / "quantize.json").read_text())["rows"]


def test_where_files_are_and_how_work_is_done_make_no_other_row(copied, inputs, tmp_path, ran, call):
    moved = tmp_path / "moved.safetensors"
    shutil.copy(inputs / "dense.safetensors", moved)
    code, _, err = call(
        *with_options(command("quantize", "asymmetric-4", inputs, copied), "--checkpoint", moved, "--no-bf16")
    )
    assert code == 0, err
    assert ran == []


def test_another_seed_checkpoint_or_number_of_epochs_is_another_row(copied, inputs, tmp_path, ran, call):
    assert call(*command("quantize", "asymmetric-4", inputs, copied, "--seed", 3))[0] == 0
    assert ran == ["asymmetric-4"]
    assert record_of(copied, "asymmetric-4")["recipe"]["seed"] == 3
    other = tmp_path / "other.safetensors"
    save_network(other, NetworkState(new_network(ModelOptions(), seed=1), ModelOptions()))
    assert (
        call(*with_options(command("quantize", "symmetric-2", inputs, copied), "--checkpoint", other))[0] == 0
    )
    assert ran[1:] == ["symmetric-2"]
    assert record_of(copied, "symmetric-2")["source"] == file_facts(other)["sha256"]
    plan = plan_study("quantize", ["improved-3"], BASE, copied, epochs=2)
    record = record_of(copied, "improved-3")
    facts = {"source": record["source"], "dataset": record["dataset"]}
    assert finished_row(plan.folder("improved-3"), plan.rows[0][1], **facts) is None


def test_overwrite_runs_the_rows_asked_for_again_and_keeps_files_of_others(copied, inputs, ran, call):
    mine = copied / "rows" / "pruned-finetuned-3" / "notes.txt"
    mine.write_text("mine")
    before = stamps(copied)
    rows = command("quantize", "pruned-finetuned-3", inputs, copied, "--epochs", 1, "--overwrite")
    code, _, err = call(*rows)
    assert code == 0, err
    assert ran == ["pruned-finetuned-3"]  # not the long training that it starts from
    assert {name for name, stamp in stamps(copied).items() if stamp != before[name]} == set(ran)
    assert mine.read_text() == "mine"


def test_overwrite_with_a_wrong_checkpoint_costs_no_results(copied, inputs, ran, call):
    before = stamps(copied)
    rows = command("quantize", "asymmetric-4", inputs, copied, "--overwrite")
    code, _, err = call(*with_options(rows, "--checkpoint", inputs / "no.pt"))
    assert code == 1
    assert "no.pt does not exist" in one_line(err)
    assert (ran, stamps(copied)) == ([], before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: b"{", "Invalid JSON"),
        (lambda record: b"[]", "row.json is damaged: the document: "),
        (lambda record: b"\xff", "row.json is damaged"),
        (lambda record: b'{"name": "asymmetric-4"}', "is damaged: study: "),
        (lambda record: record | {"top1": "much"}, "is damaged: top1: "),
        (lambda record: record | {"top1_interval": [0.5]}, "is damaged: top1_interval"),
        (lambda record: record | {"recipe": {"quantize": {"bits": 77}}}, "is damaged: quantize.bits: "),
    ],
)
@pytest.mark.usefixtures("tiny")
def test_a_damaged_record_is_one_line(copied, inputs, call, change, message):
    path = copied / "rows" / "asymmetric-4" / "row.json"
    damaged = change(json.loads(path.read_text()))
    path.write_bytes(damaged if isinstance(damaged, bytes) else json.dumps(damaged).encode())
    code, _, err = call(*command("quantize", "asymmetric-4", inputs, copied))
    assert code == 1
    assert "Traceback" not in err
    error = err.strip().splitlines()[-1]
    assert error.startswith("modelpress: error: ")
    assert message in error
    assert error.endswith("delete it to run the row again")
    assert path.exists()


def test_a_lost_network_that_a_row_starts_from_is_named(copied, inputs, ran, call):
    (copied / "rows" / "iterative-global-70" / "checkpoint.safetensors").unlink()
    code, _, err = call(*command("quantize", "pruned-finetuned-3", inputs, copied, "--epochs", 1))
    assert code == 1
    assert "checkpoint.safetensors is gone, and later rows start from it; delete row.json" in err
    assert "Traceback" not in err
    assert ran == []


def test_a_stopped_study_keeps_its_rows_and_goes_on(inputs, tmp_path, ran, monkeypatch, call):
    rows = command("prune", "one-shot-30,finetuned-70", inputs, tmp_path, "--epochs", 2)
    with monkeypatch.context() as stopping:
        stopping.setattr("modelpress.toolkit.commands.study.network.TerminalProgress", lambda: SignalAt(1))
        code, _, err = call(*rows)
    assert code == 130
    assert "stopped in epoch 2 of 2" in err
    assert list(stamps(tmp_path)) == ["one-shot-30"]
    unfinished = tmp_path / "rows" / "finetuned-70" / ".checkpoint.state.safetensors"
    assert unfinished.is_file()
    assert not (tmp_path / "prune.json").exists()
    before = stamps(tmp_path)["one-shot-30"]
    code, _, err = call(*rows)
    assert code == 0, err
    assert ran == ["one-shot-30", "finetuned-70", "finetuned-70"]
    assert "resumed after epoch 1" in err
    assert stamps(tmp_path)["one-shot-30"] == before
    assert not unfinished.exists()
    record = record_of(tmp_path, "finetuned-70")
    assert [epoch["epoch"] for epoch in record["training"]] == [1, 2]
    assert record["sparsity"] == pytest.approx(0.7, abs=1e-3)
    assert all(share == pytest.approx(0.7, abs=5e-3) for share in record["layers"].values())
    assert {path.name for path in tmp_path.glob("prune.*")} == {
        f"prune.{kind}" for kind in ("json", "csv", "md", "png", "svg")
    }


def test_a_row_is_trained_to_the_bytes_of_another(inputs, tmp_path, ran, call):
    fixed, matched = "fixed-s70-w2", "as-large-as-fixed-s70-w2"
    rows = command("frontier", matched, inputs, tmp_path, "--epochs", 2)
    code, _, err = call(*rows)
    assert code == 0, err
    assert ran == [fixed, matched]
    record = record_of(tmp_path, matched)
    assert record["recipe"]["finetune"]["target_bytes"] == record_of(tmp_path, fixed)["size_bytes"]
    assert "file_bytes" in record["training"][0]["facts"]
    assert call(*with_options(rows, "--rows", fixed))[0] == 0  # neither is run again, and both are shown
    both = json.loads((tmp_path / "frontier.json").read_text())["rows"]
    assert ([row["name"] for row in both], ran) == ([fixed, matched], [fixed, matched])

    (tmp_path / "rows" / fixed / "model.press").unlink()
    code, _, err = call(*rows)
    assert code == 1
    assert f"model.press is gone, and {matched} is to be as large; delete row.json beside it" in err
    assert "Traceback" not in err


# the commands


@pytest.mark.parametrize(
    "case",
    [
        (["--rows", "nonsense"], "--rows 'nonsense' fits no row; rows are ", 2),
        (["--checkpoint", "{inputs}/no.pt"], "no.pt does not exist", 1),
        (["--checkpoint", "{inputs}"], "is no file", 1),
        (["--checkpoint", "{inputs}/recipe.yaml"], "is a YAML file, expected a network file", 1),
        (["--checkpoint", "{inputs}/pruned.safetensors"], "the checkpoint is pruned already", 1),
        (["-c", "{output}/cifar10.yaml", "--data-dir", "{output}/nowhere"], "nowhere", 1),
        (["--data-dir", "{output}"], "the digits need no folder", 1),
        (["-o", "{inputs}/recipe.yaml"], "writing it would destroy it", 1),
        (["-o", "{output}/occupied"], "cannot be created", 1),
        (["-o", "{output}/occupied", "--overwrite"], "cannot be created", 1),
        (["--device", "tpu"], "choose auto, cpu or cuda", 2),
    ],
)
def test_bad_options_are_one_line(inputs, tmp_path, call, case):
    options, message, expected = case
    (tmp_path / "cifar10.yaml").write_text("data:\n  dataset: cifar10\n")
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "rows").write_text("a file")
    filled = [option.format(inputs=inputs, output=tmp_path) for option in options]
    code, _, err = call(*with_options(command("prune", "dense", inputs, tmp_path / "o"), *filled))
    assert code == expected
    error = err.strip().splitlines()[-1] if "occupied" in err else one_line(err)
    assert "Traceback" not in err
    assert message in error
    assert not list(tmp_path.glob("o/rows"))


@pytest.mark.parametrize("study", ["prune", "quantize"])
def test_a_study_needs_a_trained_network(inputs, tmp_path, call, study):
    code, _, err = call("study", study, "-c", inputs / "recipe.yaml", "-o", tmp_path / "o")
    assert code == 2
    assert "pass --checkpoint FILE" in one_line(err)
    assert not (tmp_path / "o").exists()


def test_no_epochs_are_wrong_usage(inputs, tmp_path, call):
    assert call(*command("prune", "reference", inputs, tmp_path / "o", "--epochs", 0))[0] == 2


# the figures


def measured(name, *, top1=None, sparsity=0.0):
    """A record as of a run on CIFAR-10."""
    row = ROWS[name]
    return RowRecord(
        name=name,
        study=row.study,
        kind=row.kind,
        method=row.method,
        published=row.published,
        top1=((row.published or 90.0) + 0.1) / 100 if top1 is None else top1,
        top1_interval=(0.0, 1.0),
        n_images=10_000,
        sparsity_before=0.0,
        sparsity=sparsity,
        layers={},
        size_bytes=100_000,
        epochs=0,
        seconds=0.0,
        images_per_second=None,
        training=[],
        recipe=row.recipe(BASE).model_dump(mode="json"),
        source="",
        dataset="",
        environment={},
    )


@pytest.mark.parametrize(("draw", "study"), [(accuracy_by_sparsity, "prune"), (accuracy_by_bits, "quantize")])
@pytest.mark.parametrize("kind", ["all", "post-training", "improved"])
def test_legends_stand_below_the_panels(draw, study, kind):
    figure = draw([measured(row.name) for row in choose_rows(study, [kind])])
    figure.draw_without_rendering()
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert len(labels) == len(set(labels))
    assert ("our recipe" in labels) == (kind != "post-training")
    box = legend.get_window_extent()
    assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
    assert figure.bbox.containsx(box.x0)
    assert figure.bbox.containsx(box.x1)


def test_a_coarse_grid_is_no_pruning():
    dense = [measured("symmetric-2", sparsity=0.98), measured("asymmetric-4")]
    assert len(accuracy_by_bits(dense).axes) == 2  # close up and whole
    assert len(accuracy_by_bits([*dense, measured("pruned-2", sparsity=0.7)]).axes) == 4


def test_figures_without_published_figures_do_not_name_them():
    records = [replace(measured(name), published=None) for name in ("one-shot-30", "improved-70")]
    (legend,) = accuracy_by_sparsity(records).legends
    assert [text.get_text() for text in legend.get_texts()] == ["not trained", "our recipe"]


def test_perfect_and_hopeless_rows_are_drawn():
    for top1 in (0.0, 1.0):
        accuracy_by_sparsity([measured("improved-70", top1=top1)]).draw_without_rendering()
        accuracy_by_bits([measured("improved-4", top1=top1)]).draw_without_rendering()


def test_records_survive_their_file(tmp_path):
    record = replace(measured("asymmetric-4"), source="s", dataset="d")
    (tmp_path / "row.json").write_text(json.dumps(asdict(record)))
    assert finished_row(tmp_path, recipe_of("asymmetric-4"), source="s", dataset="d") == record
    assert finished_row(tmp_path, recipe_of("asymmetric-4"), source="s", dataset="other") is None
    assert finished_row(tmp_path, recipe_of("asymmetric-4"), source="other", dataset="d") is None
    assert finished_row(tmp_path / "none", recipe_of("asymmetric-4"), source="s", dataset="d") is None
