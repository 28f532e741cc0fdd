import json

import numpy as np
import onnx
import pytest
import torch

from modelpress.benchmarks.records import read_results
from modelpress.export.press.reading import read_artifact
from modelpress.export.press.writing import write_artifact
from modelpress.toolkit.commands import cli
from modelpress.toolkit.networks.resnet_cifar import ResNetCifar
from tests.helpers.command_line import QUICK, modelpress, one_line
from tests.helpers.models import small_model
from tests.helpers.paths import RECIPES

FLAVOURS = ("float", "sparse", "int8-sparse")  # of the default recipe
ALL_FLAVOURS = f"onnx=[{', '.join(FLAVOURS)}]"
SHORT = ["--epochs", 1, "--set", "train.epochs=1", "--device", "cpu", *QUICK, "--set", ALL_FLAVOURS]
RECIPE = str(RECIPES / "resnet20-cifar10.yaml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The default run, with one epoch of each training."""
    folder = tmp_path_factory.mktemp("run") / "out"
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert modelpress(monkeypatch, "run", "-o", folder, *SHORT) == 0
    return folder


def test_a_run_leaves_every_file_it_promises(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "model.press",
        *(f"model-{flavour}.onnx" for flavour in FLAVOURS),
        "dense-float.onnx",
        "dense.safetensors",
        "checkpoint.safetensors",
        "manifest.json",
        "results.json",
        "report.html",
    }
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    for name, facts in manifest["files"].items():
        assert (finished / name).stat().st_size == facts["size_bytes"]


def test_results_are_those_of_the_files(finished):
    results = read_results(finished / "results.json")
    files = ["model.press", *(f"model-{flavour}.onnx" for flavour in FLAVOURS)]
    assert [model.path for model in results.models] == ["dense-float.onnx", *files]
    for model in results.models:
        assert model.size_bytes == (finished / model.path).stat().st_size
        assert model.n_images == 359
        assert len(model.latency) == 1
    dense, packed, emitted, sparse, integer = results.models
    judged = results.parameters["validation_top1"]
    assert (results.parameters["precision"] == "float16") == (judged["float16"] >= judged["float32"])
    page = (finished / "report.html").read_text()
    assert f"Scales and biases are in {results.parameters['precision']}; validation accuracy" in page
    assert dense.sparsity == 0
    for model in (packed, emitted, sparse):
        assert model.sparsity == pytest.approx(187_835 / 270_896)
        assert model.top1 == packed.top1
    assert integer.sparsity >= packed.sparsity
    assert packed.size_bytes < 70_000
    assert sparse.size_bytes < integer.size_bytes < 108_000
    assert [f.candidate for f in results.fidelity] == files
    for record in results.fidelity[:-1]:
        assert record.differing_labels == 0
        assert record.largest_difference < 1e-3
    steps = {(step.candidate, step.what): step for step in results.parity}
    assert steps["model-sparse.onnx", "weights"].equal
    assert "21 of 21 Conv compute on integers" in " ".join(integer.audit.summary)
    assert len(results.training["finetune"]) == 1


def test_stages_one_by_one_give_the_same_artifact(finished, tmp_path, call):
    pruned, quantized, packed = (tmp_path / n for n in ("p.safetensors", "q.safetensors", "m.press"))
    assert call("prune", finished / "dense.safetensors", "-o", pruned)[0] == 0
    code, out, _ = call("quantize", pruned, "--epochs", 1, "--device", "cpu", "-o", quantized, "--json")
    assert code == 0
    assert len(json.loads(out)["epochs"]) == 1
    assert call("pack", quantized, "-o", packed)[0] == 0
    assert read_artifact(packed).equals(read_artifact(finished / "model.press"))
    assert call("onnx", packed, "-o", tmp_path / "m.onnx")[0] == 0
    assert (tmp_path / "m.onnx").read_bytes() == (finished / "model-float.onnx").read_bytes()


def test_train_writes_a_network_that_pack_takes(tmp_path, call):
    code, _, err = call("train", "--epochs", 0, "-o", tmp_path / "d.safetensors")
    assert code == 0, err
    code, out, _ = call("pack", tmp_path / "d.safetensors", "-o", tmp_path / "d.press", "--json")
    assert json.loads(out)["size_bytes"] == (tmp_path / "d.press").stat().st_size


def test_verify_compares_with_an_onnx_file(finished, call):
    code, out, _ = call(
        "verify", finished / "model.press", "--against", finished / "model-float.onnx", "--json"
    )
    assert code == 0
    assert set(json.loads(out)["steps"]) >= {
        "checksums",
        "decode",
        "re-encode",
        "ONNX checker",
        "ONNX Runtime",
        "weights",
    }
    code, _, err = call("verify", finished / "model.press", "--against", finished / "dense-float.onnx")
    assert code == 1
    assert "differs" in err


def test_inspect_accounts_for_every_byte(finished, call):
    code, out, err = call("inspect", finished / "model.press", "--json")
    assert code == 0, err
    facts = json.loads(out)
    total = sum(facts[f"{part}_bytes"] for part in ("graph", "directory", "table", "frame"))
    assert total + sum(t["bytes"] for t in facts["tensors"]) == facts["size_bytes"]
    code, out, err = call("inspect", finished / "model.press", "--wide")
    assert "+huffman" in out
    assert "shared code tables" in out
    assert err == ""


def test_unpack_gives_codes_or_a_model(finished, tmp_path, call):
    assert call("unpack", finished / "model.press", "-o", tmp_path / "m.npz")[0] == 0
    arrays = np.load(tmp_path / "m.npz")
    codes = arrays["body_op.0.conv1.0.conv.weight/codes"]
    assert codes.dtype == np.uint8
    assert codes.max() <= 15
    assert call("unpack", finished / "model.press", "-o", tmp_path / "m.onnx")[0] == 0
    onnx.checker.check_model(onnx.load(tmp_path / "m.onnx"), full_check=True)
    code, _, err = call("unpack", finished / "model.press", "-o", tmp_path / "m.txt")
    assert (code, "ends in .onnx or .npz" in err) == (2, True)


def test_unpack_gives_the_levels_that_are_coded(finished, tmp_path, call):
    assert call("unpack", finished / "model.press", "--levels", "-o", tmp_path / "levels.npz")[0] == 0
    levels = np.load(tmp_path / "levels.npz")
    model = read_artifact(finished / "model.press")
    assert sorted(levels.files) == sorted(model.quantized())
    for name, tensor in model.quantized().items():
        assert levels[name].shape == tensor.shape
        if tensor.support is not None:
            np.testing.assert_array_equal(levels[name] != 0, tensor.support)
    code, _, err = call("unpack", finished / "model.press", "--levels", "-o", tmp_path / "m.onnx")
    assert code == 1
    assert "--levels go into a name that ends in .npz" in one_line(err)


def test_a_limit_on_decoded_bytes_can_be_raised(finished, call):
    assert call("verify", finished / "model.press", "--max-decoded", 5)[0] == 0
    assert call("inspect", finished / "model.press", "--max-decoded", 0)[0] == 2


def test_bench_and_report_read_what_run_wrote(finished, tmp_path, call):
    files = [finished / "dense-float.onnx", finished / "model.press"]
    options = ["--batch", "1", "2", "--threads", "1", "--rounds", "1", "-o", tmp_path / "r.json", "--json"]
    code, out, err = call("bench", *files, *options)
    assert code == 0, err
    measured = json.loads(out)["models"]
    assert [m["n_images"] for m in measured] == [359, 359]
    assert measured[1]["top1"] == read_results(finished / "results.json").models[1].top1
    assert [record["batch"] for record in measured[0]["latency"]] == [1, 2]
    code, _, err = call("report", tmp_path / "r.json", finished / "results.json", "-o", tmp_path / "r.html")
    assert code == 0, err
    assert (tmp_path / "r.html").read_text().count("<h1>") == 3  # the comparison, and each run


def test_resuming_a_complete_run_does_nothing_and_other_recipes_are_refused(finished, call):
    before = (finished / "model.press").stat().st_mtime_ns
    code, _, err = call("run", "-o", finished, *SHORT, "--resume")
    assert code == 0
    assert "complete already" in err
    assert (finished / "model.press").stat().st_mtime_ns == before
    code, _, err = call("run", "-o", finished, "--resume")
    assert code == 1
    assert "holds a run of another recipe" in err
    code, _, err = call("run", "-o", finished, *SHORT, "--resume", "--overwrite")
    assert code == 2
    assert "give one of them" in err


def test_files_of_others_in_the_output_folder_are_kept(tmp_path, call):
    out = tmp_path / "out"
    (out / "state").mkdir(parents=True)
    (out / "state" / "keep.txt").write_text("mine")
    (out / "report.html").write_text("mine")
    for options, message, expected in (
        (["--overwrite", "--device", "tpu"], "choose auto, cpu or cuda", 2),
        (["--resume"], "holds no run to resume", 1),
    ):
        code, _, err = call("run", "-o", out, *options)
        assert code == expected
        assert message in one_line(err)
        assert (out / "state" / "keep.txt").read_text() == (out / "report.html").read_text() == "mine"


def test_a_compressed_network_is_no_baseline(finished, tmp_path, call):
    code, _, err = call("run", "--checkpoint", finished / "checkpoint.safetensors", "-o", tmp_path / "o")
    assert code == 1
    assert "pruned and quantized already" in one_line(err)
    code, _, err = call("prune", finished / "checkpoint.safetensors", "-o", tmp_path / "p.safetensors")
    assert code == 1
    assert "quantized already" in one_line(err)


def test_what_was_pruned_stays_pruned(finished, tmp_path, call):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    assert call("prune", finished / "dense.safetensors", "--sparsity", 0.5, "-o", first)[0] == 0
    code, out, _ = call("prune", first, "--sparsity", 0.2, "-o", second, "--json")
    assert code == 0
    assert json.loads(out)["removed"] == 134_168


def test_a_network_of_another_data_set_is_refused(finished, tmp_path, tiny_cifar, call):
    arguments = ["-c", RECIPE, "--data-dir", tiny_cifar, "--epochs", 0, "-o", tmp_path / "q.safetensors"]
    code, _, err = call("quantize", finished / "dense.safetensors", *arguments)
    assert code == 1
    assert "was trained on digits, the recipe's data set is cifar10" in one_line(err)


def test_network_files_end_in_safetensors_and_unfinished_trainings_are_kept(tmp_path, call):
    code, _, err = call("train", "--epochs", 0, "-o", tmp_path / "net.pt")
    assert code == 1
    assert "ends in .safetensors" in one_line(err)
    unfinished = tmp_path / ".d.state.safetensors"
    unfinished.write_bytes(b"x")
    code, _, err = call("train", "--epochs", 0, "-o", tmp_path / "d.safetensors")
    assert code == 1
    assert "--resume goes on, --overwrite starts again" in one_line(err)
    assert unfinished.exists()


def test_folders_where_files_are_due_are_found_at_once(tmp_path, tiny_cifar, call):
    (tmp_path / "d.safetensors").mkdir()
    for arguments in (
        ["train", "-o", tmp_path / "d.safetensors", "--overwrite"],
        ["train", "-o", "/", "--overwrite"],
    ):
        code, _, err = call(*arguments)
        assert code == 1
        one_line(err)
    (tmp_path / "o" / "model.press").mkdir(parents=True)
    code, _, err = call("run", "-o", tmp_path / "o", "--overwrite")
    assert code == 1
    assert "is a folder" in one_line(err)
    for path in (".", "/", ""):
        code, _, err = call("unpack", path)
        assert code == 1
        one_line(err)


def test_digits_artifacts_are_measured_without_scikit_learn(finished, monkeypatch, call):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    code, out, err = call(
        "bench", finished / "model.press", "--batch=1", "2", "--threads=1", "--rounds=1", "--json"
    )
    assert code == 0, err
    assert "accuracy is not measured" in err
    assert [r["batch"] for r in json.loads(out)["models"][0]["latency"]] == [1, 2]


def test_dry_run_prints_the_recipe_and_writes_nothing(tmp_path, call):
    code, out, _ = call("run", "-c", RECIPE, "--set", "quantize.bits=3", "-o", tmp_path / "o", "--dry-run")
    assert code == 0
    assert "bits: 3" in out
    assert not (tmp_path / "o").exists()


def bad_checkpoint(folder, change):
    state = ResNetCifar().state_dict()
    change(state)
    torch.save(state, folder / "c.pt")
    return folder / "c.pt"


@pytest.fixture
def tiny_cifar(tmp_path):
    folder = tmp_path / "cifar"
    folder.mkdir()
    records = np.zeros((4, 3073), np.uint8)
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        records.tofile(folder / name)
    return folder


def test_bad_input_is_one_line_and_leaves_nothing_behind(tmp_path, tiny_cifar, call):
    out = tmp_path / "out"
    good = ["run", "-c", RECIPE, "-o", out, "--epochs", 0, "--data-dir", tiny_cifar]
    missing = bad_checkpoint(tmp_path, lambda state: state.pop("final_fc.linear.bias"))
    (tmp_path / "text.pt").write_text("hello")
    truncated = tmp_path / "truncated"
    truncated.mkdir()
    for path in tiny_cifar.iterdir():
        (truncated / path.name).write_bytes(path.read_bytes()[:-7])
    (tmp_path / "file").write_text("")
    cases = [
        ([*good[:-1], tmp_path / "nowhere"], "does not exist", 1),
        ([*good[:-1], truncated], "truncated", 1),
        ([*good, "--checkpoint", missing], "1 missing (final_fc.linear.bias (10,))", 1),
        ([*good, "--checkpoint", tmp_path / "text.pt"], "no state dict", 1),
        ([*good, "--checkpoint", tmp_path / "no.pt"], "does not exist", 1),
        ([*good, "--set", "prune.sparsty=0.5"], "did you mean 'sparsity'", 2),
        ([*good, "--set", "quantize.bits=12"], "quantize.bits is 12", 2),
        ([*good, "--set", "prune.exclude=[nothing*]"], "matches no layer", 1),
        ([*good, "--set", "onnx=[]"], "onnx is []", 2),
        ([*good, "--checkpoint", tmp_path], "is no file", 1),
        ([*good[:-1], missing], "is no folder", 1),
        (["run", "-o", out, "--data-dir", tiny_cifar], "the digits need no folder", 1),
        ([*good, "--device", "tpu"], "choose auto, cpu or cuda", 2),
        (["run", "-o", tmp_path / "file" / "out"], "cannot be created", 1),
        (["run", "-o", tmp_path], "is not empty; pass --overwrite", 1),
    ]
    for arguments, message, expected in cases:
        code, _, err = call(*arguments)
        assert code == expected, arguments
        assert message in err, err
        assert "Traceback" not in err
        assert err.strip().splitlines()[-1].startswith("modelpress: error: ")
        assert not out.exists()


def test_damaged_artifacts_are_one_line(tmp_path, call):
    path = tmp_path / "model.press"
    write_artifact(path, small_model())
    path.write_bytes(path.read_bytes()[:-1])
    for command in ("inspect", "verify", "onnx", "unpack", "bench"):
        code, _, err = call(command, path)
        assert code == 1
        assert "shorter than it declares" in one_line(err)


def test_existing_files_are_kept_without_overwrite(tmp_path, call):
    write_artifact(tmp_path / "model.press", small_model())
    (tmp_path / "model.onnx").write_text("mine")
    code, _, err = call("unpack", tmp_path / "model.press")
    assert code == 1
    assert "exists; pass --overwrite" in one_line(err)
    assert (tmp_path / "model.onnx").read_text() == "mine"


@pytest.mark.parametrize("batch", ["0", "x", "-1", "", "²"])
def test_batch_sizes_must_be_positive(tmp_path, call, batch):
    code, _, err = call("bench", tmp_path / "m.press", f"--batch={batch}")
    assert code == 2
    assert "expected positive whole numbers" in one_line(err)


@pytest.mark.parametrize("arguments", [["quantize"], ["run", "--epochs", "-1"], ["nonsense"]])
def test_wrong_usage_exits_with_2(call, arguments):
    assert call(*arguments)[0] == 2


@pytest.mark.parametrize("command", ["", *cli.COMMANDS])
def test_every_help_reads(call, command):
    code, out, _ = call(*([command] if command else []), "--help")
    assert code == 0
    assert "Usage: modelpress" in out


# schedules, learned grids, teachers

SCHEDULED = ["--set", "prune.schedule=cubic", "--set", "prune.epochs=1", "--set", "prune.updates_per_epoch=2"]
LEARNED = ["--set", "quantize.learned=true", "--set", "quantize.range=mse", "--set", "quantize.after=1"]
DISTILLED = ["--set", "finetune.distill_weight=0.5"]


def test_quantize_prunes_on_a_schedule_and_learns_its_grid(finished, tmp_path, call):
    network, packed = tmp_path / "q.safetensors", tmp_path / "m.press"
    options = [*SCHEDULED, *LEARNED, *DISTILLED, "--set", "quantize.bits=2", "--device", "cpu"]
    code, out, err = call(
        "quantize", finished / "dense.safetensors", "--epochs", 2, "-o", network, *options, "--json"
    )
    assert code == 0, err
    assert json.loads(out)["epochs"][-1]["sparsity"] == pytest.approx(0.7, abs=1e-5)
    assert "187,835 of 268,336 prunable weights removed (70.00%)" in err
    assert call("pack", network, "-o", packed)[0] == 0
    tensor = read_artifact(packed).quantized()["body_op.0.conv1.0.conv.weight"]
    assert tensor.bits == 2
    values = np.unique(np.unique(tensor.dequantize() / tensor.channel_scale.reshape(-1, 1, 1, 1)).round(6))
    assert len(values) <= 5  # four values and zero
    assert call("verify", packed)[0] == 0


def test_prune_refuses_a_recipe_that_prunes_while_it_finetunes(finished, tmp_path, call):
    settings = [*SCHEDULED, "--set", "finetune.epochs=2"]
    code, _, err = call("prune", finished / "dense.safetensors", "-o", tmp_path / "p.safetensors", *settings)
    assert code == 2
    one_line(err)
    assert "this recipe removes weights while it finetunes" in err


def test_prune_tells_what_a_budget_left(finished, tmp_path, call):
    settings = ["--set", "prune.granularity=channel", "--set", "prune.budget={macs: 0.6x}"]
    command = ["prune", finished / "dense.safetensors", "-o", tmp_path / "p.safetensors", *settings]
    code, _, err = call(*command, "--sparsity", 0.4)
    assert code == 2
    assert "sparsity 0.4 is given beside a budget of macs, which decides how much is removed" in one_line(err)

    code, out, _ = call(*command, "--json")
    assert code == 0
    facts = json.loads(out)
    had, has = facts["multiplications"]
    assert facts["asked_for"] is None
    assert facts["budget"]["found"] == pytest.approx(has / had, abs=1e-4)
    assert 0.5 * had < has <= 0.6 * had
    assert facts["parameters"][1] < facts["parameters"][0]


def test_a_pruned_network_needs_a_teacher_by_name(finished, tmp_path, call):
    pruned, quantized = tmp_path / "p.safetensors", tmp_path / "q.safetensors"
    assert call("prune", finished / "dense.safetensors", "-o", pruned)[0] == 0
    options = ["--epochs", 1, "--device", "cpu", *DISTILLED, "-o", quantized]
    code, _, err = call("quantize", pruned, *options)
    assert code == 1
    one_line(err)
    assert "name the dense one with --set model.teacher=FILE" in err
    teacher = ["--set", f"model.teacher={finished / 'dense.safetensors'}"]
    assert call("quantize", pruned, *options, *teacher)[0] == 0


def test_a_pattern_that_does_not_fit_a_layer_is_refused_before_training(tmp_path, call):
    settings = ["--set", "prune.granularity=2:4", "--set", "prune.sparsity=0.5"]
    code, _, err = call("run", "-o", tmp_path / "out", "--device", "cpu", *settings)
    assert code == 1
    assert "head_conv.0.conv has 3 input channels, which 4 does not divide" in err.splitlines()[-1]


def test_an_interrupt_is_told(call, monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("modelpress.toolkit.model_files.inspecting.inspection", interrupted)
    code, _, err = call("inspect", tmp_path / "a.press")
    assert code == 130
    assert one_line(err).strip() == "modelpress: stopped"
