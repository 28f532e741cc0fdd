import re

import pytest

from export.errors import InputError
from tests.conftest import ROOT
from toolkit.recipe import Recipe, dump_recipe, load_recipe, parse_setting


def test_the_defaults_are_the_recipe_without_a_file():
    assert load_recipe(None, {}) == Recipe()


def test_a_recipe_survives_being_written_and_read(tmp_path):
    recipe = load_recipe(None, {"quantize.bits": 6, "bench.batch": [1]})
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path, {}) == recipe


def test_every_key_has_a_meaning():
    assert "# None" not in dump_recipe(Recipe())


@pytest.mark.parametrize("with_file", [True, False])
def test_layer_patterns_may_hold_dots_and_add_to_the_others(tmp_path, with_file):
    path = tmp_path / "recipe.yaml"
    path.write_text("quantize: {bits: 3}")
    recipe = load_recipe(path if with_file else None, {"quantize.layers.body_op.0*": 6})
    assert recipe.quantize.layers == {"head_conv*": "float", "final_fc*": "float", "body_op.0*": 6}


def test_shipped_recipes_are_valid():
    recipes = sorted((ROOT / "recipes").glob("*.yaml"))
    assert recipes
    for path in recipes:
        load_recipe(path, {})


def test_overrides_win_and_leave_the_rest_of_a_section():
    recipe = load_recipe(None, {"finetune.epochs": 2})
    assert recipe.finetune.epochs == 2
    assert recipe.finetune.batch == Recipe().finetune.batch


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"prun.sparsity": 1}, "unknown key 'prun'; did you mean 'prune'"),
        ({"quantize.bit": 3}, "unknown key 'quantize.bit'; did you mean 'bits'"),
        ({"prune.sparsity": 1.5}, "prune.sparsity is 1.5: input should be less than or equal to 1"),
        ({"quantize.bits": 9}, "quantize.bits is 9"),
        ({"quantize.layers": {"head*": 1}}, "quantize.layers.head* is 1"),
        ({"bench.batch": [0]}, "bench.batch.0 is 0"),
        ({"train.momentum": 0}, "nesterov needs a momentum above 0"),
        ({"data.dataset": "mnist"}, "data.dataset is 'mnist': input should be 'digits' or 'cifar10'"),
        ({"seed.value": 1}, "seed.value: seed has no keys below it"),
        ({"prune": 3}, "prune is 3"),
    ],
)
def test_mistakes_are_named(overrides, message):
    with pytest.raises(InputError, match=re.escape(message)):
        load_recipe(None, overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "is no YAML"), ("- a", "expected keys and values, got a list"), ("\0", "is no YAML")],
)
def test_files_that_are_no_recipe_are_named(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_recipe(path, {})
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe(tmp_path / "missing.yaml", {})


@pytest.mark.parametrize("text", ["quantize.bits", "=3", "a=[1", "a=" + 3000 * "[", "seed=2001-99-99"])
def test_settings_need_key_and_value(text):
    with pytest.raises(InputError, match="--set"):
        parse_setting(text)
