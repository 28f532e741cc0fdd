import re

import pytest

from modelpress.export.errors import InputError
from modelpress.toolkit.recipe import Recipe, dump_recipe, load_recipe, parse_setting
from modelpress.toolkit.studies.published.rows import ROWS
from tests.helpers.paths import RECIPES

BUDGET = {"prune.granularity": "channel", "prune.budget": {"latency": "0.5x"}}


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
    assert recipe.quantize.layers == {"role:first": "float", "role:last": "float", "body_op.0*": 6}


def test_shipped_recipes_are_valid():
    recipes = sorted(RECIPES.glob("*.yaml"))
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
        ({"prune.sparsity": -0.1}, "prune.sparsity is -0.1: input should be greater than or equal to 0"),
        ({"quantize.bits": 1}, "quantize.bits is 1: input should be greater than or equal to 2"),
        ({"quantize.layers": {"head*": 9}}, "quantize.layers.head* is 9"),
        (
            {"prune.schedule": "cubic", "prune.epochs": 7},
            "the pruning schedule is longer than the run: prune.epochs is 7, finetune.epochs 6; lower prune.epochs, "
            "or set prune.schedule to one-shot",
        ),
        (
            {"prune.schedule": "step"},
            "prune.schedule is 'step': input should be 'one-shot', 'linear' or 'cubic'",
        ),
        ({"prune.updates_per_epoch": 0}, "prune.updates_per_epoch is 0"),
        (
            {"quantize.after": 6},
            "weights would never be finetuned on their grid: quantize.after is 6, finetune.epochs 6; "
            "lower quantize.after",
        ),
        ({"quantize.after": 1, "finetune.epochs": 0}, "quantize.after is 1, finetune.epochs 0"),
        ({"quantize.after": -1}, "quantize.after is -1"),
        (
            {"train.distill_weight": 0.5},
            "train.distill_weight: a network trained from scratch has no teacher",
        ),
        ({"finetune.distill_weight": 1.5}, "finetune.distill_weight is 1.5"),
        ({"finetune.distill_temperature": 0}, "finetune.distill_temperature is 0"),
        ({"finetune.label_smoothing": 1}, "finetune.label_smoothing is 1"),
        ({"finetune.average": 1}, "finetune.average is 1"),
        ({"prune.granularity": "4:2"}, "prune: granularity 4:2 keeps 4 of 2: the first must be the smaller"),
        ({"prune.granularity": "2:2"}, "keeps 2 of 2: the first must be the smaller"),
        (
            {"prune.granularity": "3:4"},
            "granularity 3:4 removes 0.25 of the weights, sparsity is 0.7: set sparsity to 0.25",
        ),
        ({"prune.granularity": "1:3", "prune.sparsity": 0.6667}, "set sparsity to 0.666667"),
        ({"prune.granularity": "channels"}, "prune.granularity is 'channels': string should match"),
        ({"prune.granularity": "0:4"}, "prune.granularity is '0:4'"),
        (
            {"prune.method": "trimmed-l1", "prune.schedule": "linear"},
            "schedule and granularity are for pruning by magnitude; method is trimmed-l1",
        ),
        (
            {"prune.method": "group-lasso", "prune.granularity": "channel"},
            "schedule and granularity are for pruning by magnitude; method is group-lasso",
        ),
        (
            {"prune.multiple": 8, "prune.method": "group-lasso"},
            "multiple is for granularity channel, or a budget",
        ),
        ({"prune.budget": {"latency": "0.5x"}}, "budget is for whole channels, removed at once"),
        (
            {**BUDGET, "prune.schedule": "cubic", "prune.epochs": 2},
            "budget is for whole channels, removed at once",
        ),
        ({**BUDGET, "prune.budget": {}}, "a budget is one of latency, macs and bytes; given: none"),
        (
            {**BUDGET, "prune.budget": {"macs": 10, "bytes": 10}},
            "a budget is one of latency, macs and bytes; given: macs, bytes",
        ),
        ({**BUDGET, "prune.budget": {"latency": "2ms"}}, "prune.budget.latency is '2ms'"),
        ({**BUDGET, "prune.budget": {"latency": "1.5x"}}, "latency is 1.5x; expected less than 1x"),
        ({**BUDGET, "prune.budget": {"macs": "many"}}, "macs is 'many'; expected a number, 20M, or a share"),
        ({**BUDGET, "prune.budget": {"bytes": "few"}}, "expected a size in bytes"),
        ({"finetune.target_bytes": "30 stones"}, "a size is '30 stones'; expected a size in bytes, kB"),
        ({"finetune.target_bytes": 0}, "finetune.target_bytes is 0"),
        (
            {"quantize.symmetric": True, "quantize.zero_point": "integer"},
            "quantize: zero_point integer is for asymmetric grids: set symmetric to false",
        ),
        (
            {"quantize.zero_point": "int"},
            "quantize.zero_point is 'int': input should be 'float' or 'integer'",
        ),
        ({"quantize.range": "max"}, "quantize.range is 'max': input should be 'min-max' or 'mse'"),
        ({"quantize.batch_norm_images": -1}, "quantize.batch_norm_images is -1"),
    ],
)
def test_mistakes_are_named(overrides, message):
    with pytest.raises(InputError, match=re.escape(message)):
        load_recipe(None, overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        {"prune.schedule": "linear", "prune.epochs": 6},  # exactly as long as the run
        {"prune.schedule": "cubic", "prune.sparsity": 0, "prune.epochs": 100},  # nothing is pruned
        {"quantize.after": 5},
        {"quantize.after": 0, "finetune.epochs": 0},
        {"prune.granularity": "2:4", "prune.sparsity": 0.5},
        {"prune.granularity": "2:4", "prune.sparsity": 0},
        {"prune.granularity": "9:10", "prune.sparsity": 0.1},  # 1 - 9 / 10 is no 0.1
        {"prune.granularity": "1:3", "prune.sparsity": 0.666667},  # as the error says
        {"prune.granularity": "channel"},
        {**BUDGET, "prune.budget": {"macs": "20M"}},
        {"prune.method": "group-lasso", "prune.budget": {"bytes": "0.5x"}, "prune.multiple": 8},
        {"sparsify.distill_weight": 1, "finetune.distill_weight": 1},
    ],
    ids=str,
)
def test_what_is_just_allowed_is_allowed(overrides):
    load_recipe(None, overrides)


def test_sizes_take_a_unit():
    assert (
        load_recipe(None, {"quantize.price_bytes": "2 KiB", "prune.sparsity": 0}).quantize.price_bytes == 2048
    )
    symmetric = {"quantize.symmetric": True, "quantize.range": "mse", "prune.sparsity": 0}
    recipe = load_recipe(None, {"finetune.target_bytes": "49.2kB", **symmetric})
    assert recipe.finetune.target_bytes == 49_200


@pytest.mark.parametrize("name", ["s70-w4", "s70-w3", "s70-w2", "s90-w4"])
def test_shipped_recipes_are_the_rows_of_the_study(name):
    shipped = load_recipe(RECIPES / f"resnet20-cifar10-{name}.yaml", {})
    row = ROWS[f"improved-{name}"].recipe(Recipe())
    assert shipped.prune == row.prune
    assert shipped.quantize == row.quantize
    assert shipped.finetune == row.finetune
    assert shipped.data.validation == row.data.validation


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


def test_an_n_of_m_pattern_survives_yaml():
    recipe = load_recipe(
        None, dict([parse_setting("prune.granularity=2:4"), parse_setting("prune.sparsity=0.5")])
    )
    assert recipe.prune.granularity == "2:4"
    assert (
        load_recipe(None, {"prune.granularity": "1:16", "prune.sparsity": 15 / 16}).prune.granularity
        == "1:16"
    )
