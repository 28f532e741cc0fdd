"""The command line as a whole: help, choices, streams, exit codes, recipes by name."""

import json
import os
import subprocess
import sys
from importlib import import_module
from typing import get_args

import pytest
import yaml

from modelpress.export.choices import CalibrationMethod, Effort, FlavourName
from modelpress.export.errors import CommandLineError, InputError
from modelpress.export.extras import how_to_install, in_checkout
from modelpress.export.onnx_flavours import FLAVOURS
from modelpress.export.press.writing import write_artifact
from modelpress.toolkit.commands import cli
from modelpress.toolkit.commands.bench.group import COMMANDS as BENCH
from modelpress.toolkit.commands.study.group import COMMANDS as STUDY
from modelpress.toolkit.commands.verbosity import VERBOSITY
from modelpress.toolkit.data.names import DataSetName
from modelpress.toolkit.output_folder import leaving_no_folder
from modelpress.toolkit.recipe import Recipe, load_recipe, recipe_key, shipped_recipes, with_epochs
from modelpress.toolkit.recipe import without_training as cost
from tests.helpers.command_line import one_line
from tests.helpers.models import small_model
from tests.helpers.paths import RECIPES

GROUPS = {"bench", "study"}
EVERY = [
    *((name,) for name in cli.COMMANDS),
    *(("bench", name) for name in BENCH),
    *(("study", name) for name in STUDY),
]


def entry_of(path):
    return {"bench": BENCH, "study": STUDY}[path[0]][path[1]] if len(path) > 1 else cli.COMMANDS[path[0]]


@pytest.fixture
def artifact(tmp_path):
    write_artifact(tmp_path / "model.press", small_model())
    return tmp_path / "model.press"


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 200)


# Help


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
@pytest.mark.usefixtures("wide")
def test_every_help_has_an_example_and_the_common_options(path, call):
    code, out, err = call(*path, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: modelpress {path[0]}" in out
    assert "Example" in out
    if path[-1] != "study":
        assert "--quiet" in out
        assert "--verbose" in out


@pytest.mark.parametrize(
    "path", [path for path in EVERY if path[0] not in GROUPS or len(path) > 1], ids=" ".join
)
def test_the_line_in_the_list_is_the_first_sentence_of_the_help(path):
    entry = entry_of(path)
    module = import_module(f"modelpress.toolkit.commands.{entry.module}")
    first, _, rest = module.command.__doc__.partition("\n\n")
    said = " ".join(first.split())
    assert said == entry.about or said.startswith(f"{entry.about} "), rest
    for line in module.EXAMPLE.strip().splitlines():
        assert line.startswith(f"modelpress {path[0]} ") or line == "modelpress run"


@pytest.mark.usefixtures("wide")
def test_the_help_of_bench_shows_the_form_that_people_use(call):
    out = call("bench", "--help")[1]
    assert "modelpress bench [OPTIONS] FILE..." in out
    for word in (
        "--batch",
        "--threads",
        "--rounds",
        "--profile",
        "--dataset",
        *(name for name in BENCH if name != "files"),
    ):
        assert word in out
    assert "the recipe's" not in out


@pytest.mark.parametrize(
    ("arguments", "choices"),
    [
        (["pack"], get_args(Effort)),
        (["bench", "scaling"], get_args(Effort)),
        (["onnx"], get_args(FlavourName)),
        (["bundle"], get_args(FlavourName)),
        (["onnx"], [str(rule) for rule in CalibrationMethod]),
        (["bench"], get_args(DataSetName)),
    ],
)
@pytest.mark.usefixtures("wide")
def test_a_flag_that_names_a_choice_shows_its_choices(arguments, choices, call):
    assert "|".join(choices) in call(*arguments, "--help")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["onnx", "FILE", "--flavour", "int3"],
        ["bundle", "FILE", "--flavour", "golden"],
        ["bench", "scaling", "--effort", "most"],
    ],
)
def test_another_choice_is_refused_with_the_choices(arguments, artifact, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*[str(artifact) if a == "FILE" else a for a in arguments])
    assert (code, out) == (2, "")
    assert "weight-only" in err or "fast" in err
    assert [path.name for path in tmp_path.iterdir()] == ["model.press"]


def test_every_flavour_has_a_name_and_the_other_way_round():
    assert tuple(FLAVOURS) == get_args(FlavourName)


def test_options_have_the_limits_of_the_recipe(call):
    assert (recipe_key("quantize.bits").least, recipe_key("quantize.bits").most) == (2, 8)
    assert recipe_key("seed").most == 2**31 - 1
    for bits, limit in ((1, 2), (9, 8)):
        code, _, err = call("pack", "m.onnx", "--bits", bits)
        assert code == 2
        assert (
            f"or equal to {limit}" in err or "2<=x<=8" in err
        )  # the parser's words differ between its versions
    code, _, err = call("pack", "m.onnx", "--sparsity", "70")
    assert code == 2
    assert "for 70 % give 0.7" in " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_names_commands_and_options(shell):
    environment = {
        **os.environ,
        "_MODELPRESS_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "modelpress pa",
    }
    environment |= {
        "COMP_WORDS": "modelpress pa",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(
        [sys.executable, "-m", "modelpress"], env=environment, capture_output=True, text=True, check=False
    )
    assert "pack" in done.stdout, done.stderr


# Streams


def test_answers_are_on_stdout_and_json_is_alone_there(artifact, tmp_path, call):
    for arguments in (
        ["inspect", artifact],
        ["verify", artifact],
        ["unpack", artifact, "-o", tmp_path / "m.onnx"],
        ["onnx", artifact, "-o", tmp_path / "n.onnx"],
        ["pack", tmp_path / "m.onnx", "-o", tmp_path / "n.press"],
        ["bench", "size", artifact],
    ):
        overwrite = ["--overwrite"] if "-o" in arguments else []
        code, out, err = call(*arguments)
        assert code == 0, err
        assert out.strip()
        code, out, _ = call(*arguments, *overwrite, "--json")
        assert code == 0
        json.loads(out)
        assert call(*arguments, *overwrite, "--quiet")[2] == ""


def test_quiet_leaves_the_answer_and_errors(artifact, tmp_path, call):
    for where in (["-q", "verify", artifact], ["verify", "-q", artifact]):
        code, out, err = call(*where)
        assert (code, err) == (0, "")
        assert "ok  checksums" in out
    code, _, err = call("-q", "verify", tmp_path / "none.press")
    assert code == 1
    one_line(err)
    assert not VERBOSITY.verbose
    assert call("-q", "-v", "verify", artifact)[0] == call("-q", "verify", artifact, "-v")[0] == 2


def test_verbose_says_where_an_error_arose(tmp_path, call):
    code, _, err = call("verify", "-v", tmp_path / "none.press")
    assert code == 1
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("modelpress: error: ")


def test_a_pipe_that_closes_early_is_no_traceback(artifact):
    command = f"{sys.executable} -m modelpress inspect {artifact} | head -c 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


# Exit codes and folders


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["nonsense"], 2),
        (["inspect"], 2),
        (["inspect", "missing.press"], 1),
        (["inspect", "missing.press", "--max-decoded", "0"], 2),
        (["bench", "missing.press"], 1),
        (["bench", "missing.press", "--batch", "0"], 2),
        (["bench", "missing.press", "--profile", "mlperf-tiny", "--batch", "1"], 2),
        (["bench", "runtime", "missing.onnx"], 2),
        (["run", "--set", "nonsense"], 2),
        (["run", "--set", "prune.sparsty=1"], 2),
        (["run", "--set", "quantize.bits=12"], 2),
        (["run", "--device", "tpu"], 2),
        (["run", "-c", "missing.yaml"], 1),
        (["run", "-c", "broken.yaml"], 1),
        (["run", "-c", "broken.yaml", "--seed", "1"], 1),
        (["run", "--data-dir", "missing"], 1),
        (["report", "missing.json"], 1),
        (["study", "sparse-regression", "--k", "3"], 2),
    ],
)
def test_exit_codes(arguments, expected, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.yaml").write_text("quantize: {bits: 99}")
    code, _, err = call(*arguments)
    assert code == expected, err
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["broken.yaml"]


def test_a_call_that_fails_at_once_leaves_no_folder(tmp_path, call):
    target = tmp_path / "a" / "b"
    assert call("run", "-o", target, "--data-dir", tmp_path / "none")[0] == 1
    assert call("unpack", tmp_path / "none.press", "-o", target / "m.onnx")[0] == 1
    assert not list(tmp_path.iterdir())


def test_folders_that_were_there_or_hold_something_stay(tmp_path):
    (tmp_path / "old").mkdir()
    with pytest.raises(InputError), leaving_no_folder(tmp_path / "old"):
        raise InputError("no")

    def fail_late():
        (tmp_path / "new" / "empty").mkdir(parents=True)
        (tmp_path / "new" / "file").touch()
        raise InputError("no")

    with pytest.raises(InputError), leaving_no_folder(tmp_path / "new" / "empty"):
        fail_late()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "new", "old"]


# Recipes


def test_a_shipped_recipe_is_found_by_name(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    assert set(shipped_recipes()) == {path.stem for path in RECIPES.glob("*.yaml")}
    for name in ("resnet20-cifar10", "resnet20-cifar10.yaml"):
        code, out, _ = call("run", "-c", name, "--dry-run")
        assert code == 0
        assert yaml.safe_load(out)["data"]["dataset"] == "cifar10"
    (tmp_path / "resnet20-cifar10").write_text("seed: 7")  # a file wins
    assert yaml.safe_load(call("run", "-c", "resnet20-cifar10", "--dry-run")[1])["seed"] == 7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet20-cifar", "did you mean resnet20-cifar10"),
        (
            "other.yaml",
            "expected a YAML file or the name of a shipped recipe: mobilenetv2-cifar10, resnet20-cifar10",
        ),
        (".", "is a folder"),
        ("manifest.json", "is a record of a finished run, no recipe"),
    ],
)
def test_what_is_no_recipe_is_answered_with_what_to_do(name, message, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"schema_version": 1, "recipe": {}}))
    code, _, err = call("run", "-c", name)
    assert code == 1
    assert message in one_line(err)


@pytest.mark.parametrize("epochs", [0, 1, 5])
@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_can_be_tried_with_few_epochs(name, epochs, call):
    code, out, err = call("run", "-c", name, "--epochs", epochs, "--dry-run")
    assert code == 0, err
    recipe = Recipe.model_validate(yaml.safe_load(out))
    planned = load_recipe(shipped_recipes()[name], {})
    assert recipe.finetune.epochs == epochs
    assert recipe.prune.sparsity == planned.prune.sparsity
    assert (recipe.prune.scheduled or recipe.prune.by_penalty) == (bool(epochs) and cost(planned) is not None)
    assert ("removed at once, by magnitude" in " ".join(err.split())) == (
        epochs == 0 and cost(planned) is not None
    )


def test_settings_win_over_what_epochs_bring():
    recipe = load_recipe(shipped_recipes()["resnet20-cifar10-s70-w4"], {"prune.epochs": 1}, epochs=10)
    assert (recipe.finetune.epochs, recipe.prune.epochs, recipe.quantize.after) == (10, 1, 4)


def test_the_same_number_of_epochs_changes_nothing():
    for path in shipped_recipes().values():
        recipe = load_recipe(path, {})
        assert with_epochs(recipe, recipe.finetune.epochs) == recipe


def test_only_the_command_line_is_to_blame_for_what_a_good_file_does_not_say(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("quantize: {bits: 99}")
    with pytest.raises(CommandLineError):
        load_recipe(None, {"quantize.bits": 99})
    for overrides in ({}, {"seed": 1}):
        with pytest.raises(InputError) as caught:
            load_recipe(bad, overrides)
        assert not isinstance(caught.value, CommandLineError)
    assert load_recipe(bad, {"quantize.bits": 4}).quantize.bits == 4


# Installation


def test_the_hint_for_a_missing_extra_is_right_for_a_checkout_and_for_an_index(tmp_path, monkeypatch):
    assert how_to_install("train") == "pip install -e '.[train]' in the checkout"
    installed = tmp_path / "lib" / "modelpress" / "export" / "errors.py"
    assert not in_checkout(installed)
    monkeypatch.setattr("modelpress.export.errors.__file__", str(installed))
    assert how_to_install("train") == "pip install 'modelpress[train]'"
